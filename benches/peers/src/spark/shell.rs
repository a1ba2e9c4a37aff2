//! A spark-shell that is told what to do, a line at a time.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::{Form, PARTITIONS, THREADS, Times, Work};
use crate::Failure;

const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/spark/readings.scala");
/// What the lines start with that are for us.
const MARK: &str = "larder-peers ";
const MARK_ERRORS: [&str; 3] = ["error:", "Exception", "java.lang."];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Serializer {
    Java,
    Kryo,
}

impl Serializer {
    fn class(self) -> &'static str {
        match self {
            Self::Java => "org.apache.spark.serializer.JavaSerializer",
            Self::Kryo => "org.apache.spark.serializer.KryoSerializer",
        }
    }
}

/// It is killed when dropped.
pub struct Shell {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
    /// What Spark says of itself.
    log: PathBuf,
}

impl Shell {
    /// Starts it and compiles the program, which takes about half a minute. `log` is written anew.
    pub fn start(home: &Path, serializer: Serializer, scratch: &Path, log: PathBuf) -> Result<Self, Failure> {
        let log_file = File::create(&log).map_err(|e| format!("cannot create {}: {e}", log.display()))?;
        let settings = [
            format!("spark.serializer={}", serializer.class()),
            "spark.memory.offHeap.enabled=true".to_owned(),
            "spark.memory.offHeap.size=1g".to_owned(),
            "spark.ui.enabled=false".to_owned(),
            format!("spark.local.dir={}", scratch.display()),
        ];
        let mut child = Command::new(home.join("bin/spark-shell"))
            .args(["--master", &format!("local[{THREADS}]"), "--driver-memory", "4g"])
            .args(settings.iter().flat_map(|setting| ["--conf", setting]))
            .env("SPARK_HOME", home)
            .env("TERM", "dumb")
            .current_dir(scratch)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log_file)
            .spawn()
            .map_err(|e| format!("cannot start spark-shell: {e}"))?;
        let input = child.stdin.take();
        let output = BufReader::new(child.stdout.take().ok_or("spark-shell without an output")?);
        let mut shell = Self { child, input, output, log };
        shell.tell(&format!(":paste -raw {PROGRAM}"))?;
        let checkpoints = scratch.join("spark-checkpoints");
        shell.tell(&format!("sc.setCheckpointDir(\"{}\")", checkpoints.display()))?;
        shell.tell(&format!("println(\"{MARK}\" + sc.version)"))?;
        shell.answer()?;
        Ok(shell)
    }

    pub fn run(&mut self, form: Form, work: &Work) -> Result<Times, Failure> {
        let Work { level, records, reads, .. } = work;
        let call = match (form, level) {
            (Form::Rdd, Some(level)) => format!("rdd(\"{level}\")"),
            (Form::DataFrame, Some(level)) => format!("dataFrame(\"{level}\")"),
            (Form::Rdd, None) => "rddCheckpoint()".to_owned(),
            (Form::DataFrame, None) => "dataFrameCheckpoint()".to_owned(),
        };
        self.tell(&format!("new larder.peers.Readings(spark, {records}L, {PARTITIONS}, {reads}).{call}"))?;
        Ok(serde_json::from_str(&self.answer()?)?)
    }

    pub fn quit(mut self) -> Result<(), Failure> {
        self.tell(":quit")?;
        self.input = None;
        self.child.wait()?;
        Ok(())
    }

    fn tell(&mut self, line: &str) -> Result<(), Failure> {
        let input = self.input.as_mut().ok_or("spark-shell was told to quit")?;
        writeln!(input, "{line}")
            .and_then(|()| input.flush())
            .map_err(|e| format!("spark-shell is gone: {e}").into())
    }

    fn answer(&mut self) -> Result<String, Failure> {
        loop {
            let mut line = String::new();
            if self.output.read_line(&mut line)? == 0 {
                return Err(format!("spark-shell ended early; it says why in {}", self.log.display()).into());
            }
            // The prompt may stand before it; the line that asked for it may be echoed.
            if let Some((before, answer)) = line.split_once(MARK)
                && !before.contains("println")
            {
                return Ok(answer.trim().to_owned());
            }
            if MARK_ERRORS.iter().any(|mark| line.contains(mark)) {
                return Err(format!("spark-shell: {}", line.trim()).into());
            }
        }
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        // It has ended where `quit` waited for it; then neither does anything.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
