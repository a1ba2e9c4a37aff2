//! Starting a server, and waiting until it answers.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::state::{self, State};
use super::{Server, install, process};
use crate::error::Error;
use crate::project::Project;

/// What a server prints when it answers, before its address.
const READY: &str = "READY ";
const TAIL_LINES: usize = 20;
const TAIL_LINE_CHARS: usize = 300;

pub(crate) enum Started {
    Now(Tied),
    /// It was running, at this address.
    Before(String),
}

/// A server that ends with this value, or with this process, however that ends: its standard input does.
pub(crate) struct Tied {
    directory: PathBuf,
    child: Child,
    input: Option<ChildStdin>,
    url: String,
}

impl Tied {
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Lets it outlive us.
    pub(crate) fn stay(mut self) -> Result<String, Error> {
        let told = self.input.take().map_or(Ok(()), |mut input| input.write_all(b"stay\n"));
        told.map_err(|source| Error::Start { command: "the server".into(), source })?;
        let url = std::mem::take(&mut self.url);
        // Its drop would stop the server.
        std::mem::forget(self);
        Ok(url)
    }
}

impl Drop for Tied {
    fn drop(&mut self) {
        if let Err(e) = state::stop(&self.directory) {
            eprintln!("{e}");
        }
        // What has ended leaves its status behind until someone looks at it.
        let _ = self.child.try_wait();
    }
}

/// Installs what is missing, starts the server, empty, unless it runs, and waits until it answers.
pub(crate) fn start(project: &Project, server: Server) -> Result<Started, Error> {
    let directory = server.directory(project);
    let failed = |action| {
        let path = directory.clone();
        move |source| Error::File { action, path, source }
    };
    fs::create_dir_all(&directory).map_err(failed("create"))?;
    // Two that start at the same time would install over each other.
    let lock = File::create(directory.join("lock")).map_err(failed("lock"))?;
    lock.lock().map_err(failed("lock"))?;
    if let Some(state) = State::load(&directory).filter(State::is_alive) {
        if let Some(url) = state.url {
            return Ok(Started::Before(url));
        }
        // Who started it is gone: the lock was free.
        state::stop(&directory)?;
    }
    install::install(project, server)?;
    let served = directory.join("served");
    if served.exists() {
        fs::remove_dir_all(&served).map_err(failed("clear"))?;
    }
    spawn(project, server, &directory, &served).map(Started::Now)
}

fn spawn(project: &Project, server: Server, directory: &Path, served: &Path) -> Result<Tied, Error> {
    let script = install::serve_script(project, server);
    let failed = |source| Error::Start { command: script.display().to_string(), source };
    let log = File::create(State::log(directory)).map_err(failed)?;
    let mut command = Command::new(&script);
    command.arg("0").stdin(Stdio::piped()).stdout(log.try_clone().map_err(failed)?).stderr(log);
    if server == Server::Hdfs {
        command.arg(served);
    }
    eprintln!("starting {server}");
    // A group of its own: Ctrl-C in a terminal is for us, and we for it.
    let mut child = command.process_group(0).spawn().map_err(failed)?;
    let pid = child.id();
    let state = State { pid, born: process::born_ticks(pid).unwrap_or_default(), url: None };
    state.save(directory)?;
    let input = child.stdin.take();
    let mut tied = Tied { directory: directory.to_path_buf(), child, input, url: String::new() };
    tied.url = wait(server, &mut tied)?;
    State { url: Some(tied.url.clone()), ..state }.save(directory)?;
    Ok(tied)
}

/// Waits for the address that it prints.
fn wait(server: Server, tied: &mut Tied) -> Result<String, Error> {
    let log = State::log(&tied.directory);
    let deadline = Instant::now() + server.start_deadline();
    loop {
        // Looked at first, so that all it printed before its end is read.
        let ended = tied.child.try_wait().ok().flatten();
        let printed = fs::read(&log).unwrap_or_default();
        let printed = String::from_utf8_lossy(&printed);
        if let Some(url) = printed.lines().find_map(|line| line.strip_prefix(READY)) {
            return Ok(url.trim().to_owned());
        }
        let problem = match ended {
            Some(status) => format!("it ended, {status}"),
            None if Instant::now() >= deadline => {
                format!("it did not answer within {} s", server.start_deadline().as_secs())
            }
            None => {
                thread::sleep(Duration::from_millis(50));
                continue;
            }
        };
        return Err(Error::Server { server: server.to_string(), problem, tail: tail(&printed), log });
    }
}

/// The last lines, cut where they are long.
fn tail(printed: &str) -> String {
    let lines: Vec<&str> = printed.lines().collect();
    let last = lines.iter().skip(lines.len().saturating_sub(TAIL_LINES));
    last.flat_map(|line| line.chars().take(TAIL_LINE_CHARS).chain(['\n'])).collect()
}
