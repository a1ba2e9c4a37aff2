//! What can go wrong.

use std::path::PathBuf;
use std::process::ExitStatus;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot start `{command}`: {source}")]
    Start { command: String, source: std::io::Error },
    #[error("`{command}` failed: {status}")]
    Failed { command: String, status: ExitStatus },
    #[error("`{command}` ran no test: was the filter meant so?")]
    NoTest { command: String },
    #[error("cannot {action} {}: {source}", path.display())]
    File { action: &'static str, path: PathBuf, source: std::io::Error },
    #[error("{what} is not the JSON it should be: {problem}")]
    Json { what: String, problem: String },
    #[error("{tool} is not installed. {remedy}")]
    MissingTool { tool: &'static str, remedy: &'static str },
    #[error("{} is missing: {remedy}", path.display())]
    MissingFile { path: PathBuf, remedy: &'static str },
    #[error("no benchmark matches `{filter}`")]
    NoBenchmark { filter: String },
    #[error("{example} at `{left}` and at `{right}` disagree: {difference}")]
    Disagree { example: &'static str, left: String, right: String, difference: String },
    #[error("{server} did not start: {problem}. The end of {}:\n{tail}", log.display())]
    Server { server: String, problem: String, log: PathBuf, tail: String },
    #[error("process {pid} does not end, though it was killed")]
    Unstoppable { pid: u32 },
    #[error("--require-servers: {} cannot be had", missing.join(" and "))]
    Required { missing: Vec<String> },
}
