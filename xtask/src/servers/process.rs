//! Processes that may outlive us.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

/// How long a process may take to end when it is asked to; then it is killed.
const GRACE: Duration = Duration::from_secs(5);

/// When a process was started, in the kernel's ticks: with its id, this names it for good. None when it has ended.
pub(crate) fn born_ticks(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name of the program stands in parentheses, and may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") { None } else { fields.nth(18)?.parse().ok() }
}

/// Ends a process and its group, with force if need be; false when it is still there.
pub(crate) fn end(pid: u32, born: u64) -> bool {
    let Some(group) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return true };
    let is_alive = || born_ticks(pid) == Some(born);
    for signal in [Signal::TERM, Signal::KILL] {
        if !is_alive() {
            return true;
        }
        // It may end by itself meanwhile; whether it is gone is looked at below.
        let _ = kill_process_group(group, signal);
        let deadline = Instant::now() + GRACE;
        while is_alive() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(20));
        }
    }
    !is_alive()
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt;
    use std::process::{Command, Stdio};

    use super::{born_ticks, end};

    #[test]
    fn a_process_is_known_by_its_start_and_ends_with_its_group() {
        let script = "trap '' TERM; sleep 600 & echo $!; wait; sleep 600";
        let mut child =
            Command::new("sh").args(["-c", script]).stdout(Stdio::piped()).process_group(0).spawn().unwrap();
        let mut line = String::new();
        let stdout = child.stdout.take().unwrap();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut line).unwrap();
        let (leader, member) = (child.id(), line.trim().parse::<u32>().unwrap());
        let born = born_ticks(leader).unwrap();
        assert!(end(leader, born + 1), "another process of the same id is not ours to end");
        assert!(born_ticks(leader).is_some() && born_ticks(member).is_some());
        assert!(end(leader, born));
        assert_eq!((born_ticks(leader), born_ticks(member)), (None, None));
        child.wait().unwrap();
    }
}
