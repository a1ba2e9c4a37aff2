import java.io.BufferedReader;
import java.io.File;
import java.io.InputStreamReader;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.Path;
import org.apache.hadoop.hdfs.MiniDFSCluster;
import org.apache.hadoop.hdfs.protocol.HdfsConstants;

/**
 * Hadoop's mini cluster: a name node and a data node in one process, on loopback ports.
 *
 * <p>{@code MiniHdfs.java PORT DIRECTORY [BLOCK_BYTES]}: the port of the name node, 0 for any that is free, where the
 * files go, and how long their blocks are; what an earlier run left in the directory is served again. Prints {@code READY
 * hdfs://...} once files can be written. Ends with its standard input, so with whoever started it, unless that said
 * {@code stay} first. Told {@code quota PATH BYTES}, it bounds the space of a directory, -1 for no bound, and prints
 * {@code DONE}.
 */
public final class MiniHdfs {
    private static volatile MiniDFSCluster cluster;

    public static void main(String[] args) throws Exception {
        int port = Integer.parseInt(args[0]);
        File directory = new File(args[1]).getAbsoluteFile();
        Configuration conf = new Configuration();
        conf.setInt("dfs.namenode.safemode.extension", 0);
        if (args.length > 2) {
            conf.setLong("dfs.blocksize", Long.parseLong(args[2]));
        }
        boolean isNew = !new File(directory, "name-0-1/current/VERSION").exists();

        obeyStandardInput();
        cluster =
                new MiniDFSCluster.Builder(conf, directory).nameNodePort(port).numDataNodes(1).format(isNew).build();
        cluster.waitActive();
        System.out.println("READY hdfs://127.0.0.1:" + cluster.getNameNodePort());
        Thread.currentThread().join();
    }

    private static void obeyStandardInput() {
        Thread watcher = new Thread(() -> {
            try (BufferedReader input = new BufferedReader(new InputStreamReader(System.in))) {
                boolean stays = false;
                for (String line = input.readLine(); line != null; line = input.readLine()) {
                    String[] words = line.strip().split(" ");
                    stays |= words[0].equals("stay");
                    if (words[0].equals("quota")) {
                        // -1 is Hadoop's word for no bound, too.
                        long bytes = Long.parseLong(words[2]);
                        cluster.getFileSystem().setQuota(new Path(words[1]), HdfsConstants.QUOTA_DONT_SET, bytes);
                        System.out.println("DONE");
                    }
                }
                if (stays) {
                    return;
                }
            } catch (java.io.IOException failed) {
                failed.printStackTrace();
            }
            Runtime.getRuntime().halt(0);
        });
        watcher.setDaemon(true);
        watcher.start();
    }
}
