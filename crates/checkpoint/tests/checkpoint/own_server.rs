//! A server that belongs to one test, which may stop it, kill it and start it again.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use tempfile::TempDir;

use crate::backends::{Kind, Site};

const START_DEADLINE: Duration = Duration::from_secs(120);

/// So short that a part of a few chunks has several.
const HDFS_BLOCK_BYTES: u64 = 8 << 20;

/// What a server prints before its address, once it answers.
const READY: &str = "READY ";

/// Ends with this value, and with this process: its standard input does.
pub(crate) struct OwnServer {
    kind: Kind,
    script: String,
    dir: TempDir,
    child: Child,
    printed: mpsc::Receiver<String>,
    address: String,
}

impl OwnServer {
    /// Starts one on a free port, if that can be done here.
    pub(crate) fn start(kind: Kind) -> Option<Self> {
        let script = kind.serve_script()?;
        let dir = tempfile::tempdir().unwrap();
        let (child, printed, address) = serve(kind, &script, "0", &dir);
        Some(Self { kind, script, dir, child, printed, address })
    }

    /// An empty store on it.
    pub(crate) fn site(&self) -> Site {
        self.kind.at(&self.address)
    }

    /// Has it do nothing, and its connections stay open.
    pub(crate) fn stop(&self) {
        self.signal("STOP");
    }

    pub(crate) fn go_on(&self) {
        self.signal("CONT");
    }

    fn signal(&self, signal: &str) {
        let kill = format!("kill -{signal} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success(), "{kill}");
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again after a [`kill`](Self::kill), on the same port, with what it had written.
    pub(crate) fn start_again(&mut self) {
        let port = self.address.rsplit(':').next().unwrap();
        let (child, printed, address) = serve(self.kind, &self.script, port, &self.dir);
        assert_eq!(address, self.address);
        (self.child, self.printed) = (child, printed);
    }

    /// Bounds the space of a directory of HDFS, -1 for no bound.
    pub(crate) fn set_quota(&mut self, dir: &str, bytes: i64) {
        writeln!(self.child.stdin.as_mut().unwrap(), "quota {dir} {bytes}").unwrap();
        assert_eq!(self.printed.recv_timeout(START_DEADLINE).unwrap(), "DONE");
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs the script, and waits for the address; gives what it prints after that, too.
fn serve(kind: Kind, script: &str, port: &str, dir: &TempDir) -> (Child, mpsc::Receiver<String>, String) {
    let mut command = Command::new(script);
    command.arg(port);
    if kind == Kind::Hdfs {
        command.arg(dir.path().join("served")).arg(HDFS_BLOCK_BYTES.to_string());
    }
    command.current_dir(dir.path()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let printed = BufReader::new(child.stdout.take().unwrap());
    let (tell, lines) = mpsc::channel();
    // Reads on to the end: nobody may find the pipe full, or closed.
    std::thread::spawn(move || {
        for line in printed.lines().map_while(Result::ok) {
            let _ = tell.send(line);
        }
    });
    while let Ok(line) = lines.recv_timeout(START_DEADLINE) {
        if let Some(address) = line.strip_prefix(READY) {
            return (child, lines, address.trim().to_owned());
        }
    }
    let _ = child.kill();
    panic!("{script} {port} did not start: {:?}", child.wait());
}
