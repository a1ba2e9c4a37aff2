//! Processes that may outlive us.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

/// How long a process may take to end when it is asked to; then it is killed.
const GRACE: Duration = Duration::from_secs(5);

/// What the kernel says of a process that has not ended.
struct Stat {
    group: u32,
    born_ticks: u64,
}

impl Stat {
    fn of(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name of the program stands in parentheses, and may hold anything.
        let (_, fields) = stat.rsplit_once(')')?;
        let mut fields = fields.split_ascii_whitespace();
        let state = fields.next()?;
        let group = fields.nth(1)?.parse().ok()?;
        let born_ticks = fields.nth(16)?.parse().ok()?;
        (!matches!(state, "Z" | "X")).then_some(Self { group, born_ticks })
    }
}

/// When a process was started, in the kernel's ticks: with its id, this names it for good. None when it has ended.
pub(crate) fn born_ticks(pid: u32) -> Option<u64> {
    Stat::of(pid).map(|stat| stat.born_ticks)
}

/// Whether a process of the group has not ended: one that is killed may take a while, and its leader be gone before.
fn is_alive(group: u32) -> bool {
    let Ok(entries) = fs::read_dir("/proc") else { return false };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter_map(Stat::of).any(|stat| stat.group == group)
}

/// Ends a process that leads a group, and the group, with force if need be; false when something of it is still there.
pub(crate) fn end(pid: u32, born: u64) -> bool {
    let Some(group) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return true };
    if born_ticks(pid) != Some(born) {
        return true;
    }
    for signal in [Signal::TERM, Signal::KILL] {
        // It may end by itself meanwhile; whether it is gone is looked at below.
        let _ = kill_process_group(group, signal);
        let deadline = Instant::now() + GRACE;
        while is_alive(pid) && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(20));
        }
        if !is_alive(pid) {
            return true;
        }
    }
    false
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
