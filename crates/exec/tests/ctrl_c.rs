//! Ctrl-C cancels the running job, and ends the process when none runs.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use larder_exec::{Context, Error};

/// Set in the process that is interrupted.
const CHILD: &str = "LARDER_CTRL_C_CHILD";

fn interrupt(child: &Child) -> std::io::Result<()> {
    let status = Command::new("kill").args(["-INT", &child.id().to_string()]).status()?;
    assert!(status.success());
    Ok(())
}

fn child() -> Result<(), Error> {
    let context = Context::builder().threads(2).progress(false).cancel_on_ctrl_c(true).build()?;
    let endless = context.generate(2, |_| 0_u64..)?.map(|n| {
        if *n == 10_000 {
            println!("at the ten thousandth");
        }
        n % 7
    });
    let result = endless.cache()?.count();
    assert!(matches!(result, Err(Error::Cancelled)), "{result:?}");
    println!("cancelled; then {}", context.range(0..10, 2)?.count()?);
    std::thread::sleep(std::time::Duration::from_secs(60));
    println!("never");
    Ok(())
}

/// Whether this process, and so whatever it starts, was started to ignore Ctrl-C.
fn is_ignored_here() -> std::io::Result<bool> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    Ok(mask.is_some_and(|mask| u64::from_str_radix(mask.trim(), 16).is_ok_and(|mask| mask & 2 != 0)))
}

#[test]
fn a_process_that_was_started_to_ignore_it_goes_on_ignoring_it() -> Result<(), Box<dyn std::error::Error>> {
    if std::env::var_os(CHILD).is_some() {
        let context = Context::builder().threads(2).progress(false).cancel_on_ctrl_c(true).build()?;
        println!("ready");
        std::io::stdin().lines().next();
        println!("went on; then {}", context.range(0..10, 2)?.count()?);
        return Ok(());
    }
    let mut process = Command::new("sh")
        .args(["-c", "trap '' INT; exec \"$0\" \"$@\""])
        .arg(std::env::current_exe()?)
        .args(["--nocapture", "--exact", "a_process_that_was_started_to_ignore_it_goes_on_ignoring_it"])
        .env(CHILD, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let output = process.stdout.take().ok_or("no output")?;
    let mut lines = BufReader::new(output).lines();
    let mut wait_for = |what: &str| lines.by_ref().map_while(Result::ok).find(|line| line.contains(what));
    assert!(wait_for("ready").is_some());
    interrupt(&process)?;
    drop(process.stdin.take());
    assert!(wait_for("went on; then 10").is_some());
    assert!(process.wait()?.success());
    Ok(())
}

#[test]
fn it_cancels_a_job_and_then_ends_the_process() -> Result<(), Box<dyn std::error::Error>> {
    if std::env::var_os(CHILD).is_some() {
        return Ok(child()?);
    }
    if is_ignored_here()? {
        println!("SKIPPED: this test was started to ignore Ctrl-C, and so is whatever it starts");
        return Ok(());
    }
    let mut process = Command::new(std::env::current_exe()?)
        .args(["--nocapture", "--exact", "it_cancels_a_job_and_then_ends_the_process"])
        .env(CHILD, "1")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let output = process.stdout.take().ok_or("no output")?;
    let mut lines = BufReader::new(output).lines();
    let mut wait_for = |what: &str| lines.by_ref().map_while(Result::ok).find(|line| line.contains(what));
    assert!(wait_for("at the ten thousandth").is_some());
    interrupt(&process)?;
    assert!(wait_for("cancelled; then 10").is_some());
    interrupt(&process)?;
    assert_eq!(process.wait()?.code(), Some(130));
    assert!(wait_for("never").is_none());
    Ok(())
}
