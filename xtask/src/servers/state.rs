//! What is written down about a server that was started.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::process;
use crate::error::Error;

/// A started server. Written when it is spawned, and again when it answers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct State {
    pub(crate) pid: u32,
    /// See [`process::born_ticks`].
    pub(crate) born: u64,
    /// None until it answers.
    pub(crate) url: Option<String>,
}

impl State {
    pub(crate) fn log(directory: &Path) -> PathBuf {
        directory.join("log")
    }

    fn file(directory: &Path) -> PathBuf {
        directory.join("state.json")
    }

    /// None when there is none, or what is there cannot be understood.
    pub(crate) fn load(directory: &Path) -> Option<Self> {
        let state: Value = serde_json::from_slice(&fs::read(Self::file(directory)).ok()?).ok()?;
        let number = |key| state.get(key).and_then(Value::as_u64);
        Some(Self {
            pid: u32::try_from(number("pid")?).ok()?,
            born: number("born")?,
            url: state.get("url").and_then(Value::as_str).map(str::to_owned),
        })
    }

    /// Whole or not at all: someone may read it at any time.
    pub(crate) fn save(&self, directory: &Path) -> Result<(), Error> {
        let (path, unfinished) = (Self::file(directory), directory.join("state.json.tmp"));
        let port = self.url.as_deref().and_then(|url| url.rsplit_once(':')?.1.parse::<u16>().ok());
        let log = Self::log(directory).display().to_string();
        let json = json!({"pid": self.pid, "born": self.born, "url": self.url, "port": port, "log": log});
        let written =
            fs::write(&unfinished, format!("{json}\n")).and_then(|()| fs::rename(&unfinished, &path));
        written.map_err(|source| Error::File { action: "write", path, source })
    }

    pub(crate) fn is_alive(&self) -> bool {
        process::born_ticks(self.pid) == Some(self.born)
    }
}

/// Stops a server, whether it answers yet or not; false when none was running.
pub(crate) fn stop(directory: &Path) -> Result<bool, Error> {
    let state = State::load(directory).filter(State::is_alive);
    if let Some(State { pid, born, .. }) = state
        && !process::end(pid, born)
    {
        return Err(Error::Unstoppable { pid });
    }
    match fs::remove_file(State::file(directory)) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(Error::File { action: "remove", path: State::file(directory), source })
        }
        _ => Ok(state.is_some()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{State, stop};

    #[test]
    fn a_state_reads_back_and_one_that_is_not_understood_is_none() {
        let directory = std::env::temp_dir().join(format!("larder-xtask-state-{}", std::process::id()));
        fs::create_dir_all(&directory).unwrap();
        for url in [None, Some("http://127.0.0.1:81".to_owned())] {
            let state = State { pid: u32::MAX, born: 7, url };
            state.save(&directory).unwrap();
            assert_eq!(State::load(&directory), Some(state.clone()));
            assert!(!state.is_alive());
        }
        assert!(!stop(&directory).unwrap(), "nothing runs");
        assert_eq!(State::load(&directory), None);
        fs::write(directory.join("state.json"), "{\"pid\": -1}").unwrap();
        assert_eq!(State::load(&directory), None);
        fs::remove_dir_all(&directory).unwrap();
    }
}
