import java.io.File;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.hdfs.MiniDFSCluster;

/**
 * Hadoop's mini cluster: a name node and a data node in one process, on loopback ports.
 *
 * <p>{@code MiniHdfs.java PORT DIRECTORY}: the port of the name node, 0 for any that is free, and where the files go;
 * what an earlier run left there is served again. Prints {@code READY hdfs://...} once files can be written. Ends with
 * its standard input, so with whoever started it, unless that said {@code stay} first.
 */
public final class MiniHdfs {
    public static void main(String[] args) throws Exception {
        int port = Integer.parseInt(args[0]);
        File directory = new File(args[1]).getAbsoluteFile();
        Configuration conf = new Configuration();
        conf.setInt("dfs.namenode.safemode.extension", 0);
        boolean isNew = !new File(directory, "name-0-1/current/VERSION").exists();

        endWithStandardInput();
        MiniDFSCluster cluster =
                new MiniDFSCluster.Builder(conf, directory).nameNodePort(port).numDataNodes(1).format(isNew).build();
        cluster.waitActive();
        System.out.println("READY hdfs://127.0.0.1:" + cluster.getNameNodePort());
        Thread.currentThread().join();
    }

    private static void endWithStandardInput() {
        Thread watcher = new Thread(() -> {
            try {
                byte[] said = System.in.readAllBytes();
                if (new String(said).strip().equals("stay")) {
                    return;
                }
            } catch (java.io.IOException unreadable) {
                // No different from its end.
            }
            Runtime.getRuntime().halt(0);
        });
        watcher.setDaemon(true);
        watcher.start();
    }
}
