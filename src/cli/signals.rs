//! Which signals ask this program to end.

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

/// Those that it was not told to ignore: whoever began it with nohup does not want it to end with the terminal.
pub fn that_end() -> Vec<i32> {
    let ignored = ignored();
    let ends = [SIGTERM, SIGINT, SIGHUP].into_iter();
    ends.filter(|signal| ignored & (1 << (signal - 1)) == 0)
        .collect()
}

/// The signals that are ignored, a bit for each.
fn ignored() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = line.map(|mask| u64::from_str_radix(mask.trim(), 16));
    mask.and_then(Result::ok).unwrap_or(0)
}
