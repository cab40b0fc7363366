//! Running a tool as a whole process: what it costs until its data are on the disk.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use nix::sys::resource::{UsageWho, getrusage};
use serde::Serialize;
use wait4::Wait4;

/// What a run cost.
#[derive(Debug, Clone, Serialize)]
pub struct Cost {
    /// Seconds from the start until everything is on the disk.
    pub wall: f64,
    /// Seconds of processor time, user and system, of the process and its children.
    pub cpu: f64,
    /// Peak resident memory of the largest process, in bytes.
    pub rss: u64,
    /// Bytes that were written to disks.
    pub written: u64,
}

/// Runs a shell command, which must end well. What it says goes to `log`.
pub fn run(
    script: &str,
    env: &[(String, String)],
    disk: &Path,
    log: &Path,
) -> Result<Cost, String> {
    let said = File::create(log).map_err(|error| format!("{}: {error}", log.display()))?;
    let same = said.try_clone().map_err(|error| error.to_string())?;
    sync(disk)?;
    let before = written();
    let start = Instant::now();
    let mut child = Command::new("bash")
        .args(["-c", &format!("set -eo pipefail; {script}")])
        .envs(env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(said)
        .stderr(same)
        .spawn()
        .map_err(|error| format!("bash: {error}"))?;
    let used = child.wait4().map_err(|error| error.to_string())?;
    sync(disk)?;
    let wall = start.elapsed().as_secs_f64();
    if !used.status.success() {
        let said = fs::read_to_string(log).unwrap_or_default();
        let tail: Vec<&str> = said.lines().rev().take(5).collect();
        return Err(format!("{script}: {}: {}", used.status, tail.join(" | ")));
    }
    Ok(Cost {
        wall,
        cpu: (used.rusage.utime + used.rusage.stime).as_secs_f64(),
        rss: used.rusage.maxrss,
        written: written().saturating_sub(before),
    })
}

/// Runs a command that is not measured, and returns what it printed.
pub fn quiet(script: &str, env: &[(String, String)]) -> Result<String, String> {
    let output = Command::new("bash")
        .args(["-c", &format!("set -eo pipefail; {script}")])
        .envs(env.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("bash: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(format!("{script}: {}: {said}", output.status))
}

/// Empties the page cache, if that is allowed.
pub fn cool() -> bool {
    rustix::fs::sync();
    fs::write("/proc/sys/vm/drop_caches", "3").is_ok()
}

fn sync(disk: &Path) -> Result<(), String> {
    let dir = File::open(disk).map_err(|error| format!("{}: {error}", disk.display()))?;
    rustix::fs::syncfs(dir).map_err(|error| error.to_string())
}

/// Blocks of 512 bytes that children wrote so far: getrusage(2).
fn written() -> u64 {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("always allowed");
    u64::try_from(usage.block_writes()).unwrap_or_default() * 512
}
