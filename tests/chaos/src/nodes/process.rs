//! A process of this machine, as the system tells of it.

use std::{fs, time::Duration};

/// Ticks a second in which `/proc` counts, on every Linux (time(7), `USER_HZ`).
const TICKS: f64 = 100.0;

/// How long ago this process began, to a hundredth of a second.
pub(super) fn age(pid: u32) -> Duration {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let (stat, uptime) = (read(&format!("/proc/{pid}/stat")), read("/proc/uptime"));
    age_by(&stat, &uptime).unwrap_or_else(|| panic!("{stat:?} and {uptime:?} tell no age"))
}

/// The same, of what `/proc/PID/stat` and `/proc/uptime` say (proc(5)).
fn age_by(stat: &str, uptime: &str) -> Option<Duration> {
    // The name may have anything in it; the start is the 20th field after its closing parenthesis.
    let (_, fields) = stat.rsplit_once(')')?;
    let began: f64 = fields.split_whitespace().nth(19)?.parse().ok()?;
    let up: f64 = uptime.split_whitespace().next()?.parse().ok()?;
    Some(Duration::from_secs_f64((up - began / TICKS).max(0.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_as_old_as_the_system_says() {
        let stat = "7 (a ) b) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 12345 20 21";
        let fields = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(19);
        assert_eq!(fields, Some("12345"));
        assert_eq!(age_by(stat, "125.45 1.0"), Some(Duration::from_secs(2)));
        assert_eq!(age_by("7 (gwnode) S 1", "125.45 1.0"), None);
        assert!(age(std::process::id()) < Duration::from_secs(3_600));
    }
}
