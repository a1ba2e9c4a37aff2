//! Getting Spark.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Failure;

const VERSION: &str = "4.3.0";

/// Where Spark lies, after installing it into a virtual environment of Python in `out`, if it is not there.
pub fn spark(out: &Path) -> Result<PathBuf, Failure> {
    let java = run(Command::new(java()).arg("-version"))
        .map_err(|e| format!("Java 17 is needed, on the path or in JAVA_HOME: {e}"))?;
    eprintln!("Spark {VERSION} on {}", java.lines().next().unwrap_or("some Java"));
    let environment = out.join("spark-venv");
    let python = environment.join("bin/python");
    if !python.is_file() {
        run(Command::new("python3").args(["-m", "venv"]).arg(&environment))
            .map_err(|e| format!("Python 3 with venv and pip is needed to install Spark: {e}"))?;
    }
    let is_there = format!("import pyspark; assert pyspark.__version__ == '{VERSION}'");
    if run(Command::new(&python).args(["-c", &is_there])).is_err() {
        let package = format!("pyspark=={VERSION}");
        eprintln!("installing {package} into {}", environment.display());
        run(Command::new(&python).args(["-m", "pip", "install", "--disable-pip-version-check", &package]))
            .map_err(|e| format!("{package} cannot be installed: {e}"))?;
    }
    let print = "import os, pyspark; print(os.path.dirname(pyspark.__file__))";
    Ok(run(Command::new(&python).args(["-c", print]))?.trim().into())
}

fn java() -> PathBuf {
    env::var_os("JAVA_HOME").map_or_else(|| "java".into(), |home| Path::new(&home).join("bin/java"))
}

/// Runs it to its end; what it printed, or why it failed.
fn run(command: &mut Command) -> Result<String, Failure> {
    let program = command.get_program().display().to_string();
    let output = command.output().map_err(|e| format!("cannot start {program}: {e}"))?;
    let (printed, problem) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        let last = problem.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("");
        return Err(format!("{program} failed, {}: {last}", output.status).into());
    }
    Ok(if printed.is_empty() { problem.into_owned() } else { printed.into_owned() })
}
