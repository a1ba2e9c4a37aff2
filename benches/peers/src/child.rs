//! Each side of a case has a process to itself, so that its peak memory is its own.

use std::process::{Command, Stdio};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::Failure;
use crate::hybrid;
use crate::spark;

/// What a process of its own is for.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Task {
    HybridLarder(hybrid::Case),
    HybridFoyer(hybrid::Case),
    LevelsLarder(spark::Work),
}

impl Task {
    /// Does it in a process of its own.
    pub fn run<R: DeserializeOwned>(&self) -> Result<R, Failure> {
        let task = serde_json::to_string(self)?;
        let output = Command::new(std::env::current_exe()?)
            .args(["--child", &task])
            .stderr(Stdio::inherit())
            .output()
            .map_err(|e| format!("cannot start a process for {task}: {e}"))?;
        if !output.status.success() {
            return Err(format!("the process for {task} failed: {}", output.status).into());
        }
        Ok(serde_json::from_slice(&output.stdout)?)
    }
}

/// Does what another process asked for.
pub fn run(task: &str) -> Result<(), Failure> {
    let answer = match serde_json::from_str(task)? {
        Task::HybridLarder(case) => serde_json::to_string(&hybrid::larder::run(&case)?)?,
        Task::HybridFoyer(case) => serde_json::to_string(&hybrid::foyer::run(&case)?)?,
        Task::LevelsLarder(work) => serde_json::to_string(&spark::larder::run(&work)?)?,
    };
    println!("{answer}");
    Ok(())
}
