//! A systemd service and its timer.

use std::path::PathBuf;

use super::super::exit::Exit;
use super::super::output::Output;
use super::super::{Context, home};
use super::{Plan, SYSTEMD_RUNS, must, tool};
use crate::config;
use crate::error::Error;

const SERVICE: &str = "btw-backup.service";
const TIMER: &str = "btw-backup.timer";

const UNIT: &str = "\
[Unit]
Description=The night's backups
Documentation=man:btw-backup(1)
Wants=network-online.target
After=network-online.target

[Service]
Type=oneshot
ExecStart=@COMMAND@
Nice=10
IOSchedulingClass=best-effort
IOSchedulingPriority=7
UMask=0077
# The program itself is asked to end, ends what it has begun, and has hooks clear up.
KillMode=mixed
TimeoutStartSec=infinity
TimeoutStopSec=15min
";

/// What a backup of everything can do without, whatever else is run. (`ProtectClock` closes devices on older systemds.)
const ALWAYS: &str = "\
LockPersonality=yes
ProtectHostname=yes
RestrictRealtime=yes
SystemCallArchitectures=native
";

/// What it can do without if it runs no programs of the user's. Nothing of this changes what is read: without
/// `CAP_SYS_ADMIN` the attributes `trusted.*` would be invisible, `ProtectKernelModules` would hide /usr/lib/modules.
const ALONE: &str = "\
CapabilityBoundingSet=CAP_CHOWN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_KILL CAP_SETGID CAP_SETUID CAP_SYS_ADMIN
MemoryDenyWriteExecute=yes
NoNewPrivileges=yes
ProtectControlGroups=yes
ProtectHome=read-only
ProtectKernelLogs=yes
ProtectKernelTunables=yes
ProtectSystem=strict
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6
RestrictNamespaces=yes
SystemCallFilter=@system-service
";

const TIMER_UNIT: &str = "\
[Unit]
Description=The night's backups, every day

[Timer]
OnCalendar=*-*-* @AT@:00
RandomizedDelaySec=30min
# A machine that was off makes up for it.
Persistent=true

[Install]
WantedBy=timers.target
";

/// A path or word as a unit has it.
fn quoted(word: &str) -> String {
    let escaped = word
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('%', "%%");
    if word.contains([' ', '"', '\'', '\\', ';']) {
        format!("\"{escaped}\"")
    } else {
        escaped
    }
}

/// The two units.
pub fn units(plan: &Plan) -> [(&'static str, String); 2] {
    // A variable is not replaced in what is run.
    let mut command = vec![quoted(&plan.program.display().to_string()).replace('$', "$$")];
    if let Some(dir) = &plan.config_dir {
        command.push("--config-dir".to_owned());
        command.push(quoted(&dir.display().to_string()).replace('$', "$$"));
    }
    command.extend(["--quiet", "run"].map(str::to_owned));
    let mut service = UNIT.replace("@COMMAND@", &command.join(" "));
    if plan.is_root {
        service.push_str("\n# What it cannot do\n");
        service.push_str(ALWAYS);
        if plan.has_programs {
            service
                .push_str("# Hooks, commands or sendmail are run, which may need anything else.\n");
        } else {
            service.push_str(ALONE);
            for place in &plan.places {
                service.push_str(&format!(
                    "ReadWritePaths=-{}\n",
                    quoted(&place.display().to_string())
                ));
            }
        }
    } else if !plan.has_programs {
        service.push_str("NoNewPrivileges=yes\n");
    }
    let timer = TIMER_UNIT.replace("@AT@", &plan.at.strftime("%H:%M").to_string());
    [(SERVICE, service), (TIMER, timer)]
}

/// Where units are put.
fn dir() -> Result<PathBuf, Error> {
    if rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from("/etc/systemd/system"));
    }
    let config = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from);
    let config = config.filter(|dir| dir.is_absolute());
    let config = config.map_or_else(|| home().map(|home| home.join(".config")), Ok)?;
    Ok(config.join("systemd/user"))
}

fn systemctl(args: &[&str]) -> Vec<String> {
    let user = (!rustix::process::geteuid().is_root()).then_some("--user");
    user.into_iter()
        .chain(args.iter().copied())
        .map(str::to_owned)
        .collect()
}

fn control(args: &[&str]) -> Result<(), Error> {
    let args = systemctl(args);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    must("systemctl", &args, "").map(drop)
}

pub fn install(context: &Context, plan: &Plan, dry_run: bool) -> Result<Exit, Error> {
    let dir = dir()?;
    for (name, text) in units(plan) {
        let path = dir.join(name);
        if dry_run {
            Output::answer(&format!("# {}\n{text}\n", path.display()))?;
            continue;
        }
        std::fs::create_dir_all(&dir).map_err(|error| Error::file("create", &dir, error))?;
        config::write_for(&path, &text, 0o644)?;
        context.output.info(&format!("written: {}", path.display()));
    }
    if dry_run {
        return Ok(Exit::Done);
    }
    let runs = std::path::Path::new(SYSTEMD_RUNS).exists();
    if runs {
        control(&["daemon-reload"])?;
        control(&["enable", "--now", TIMER])?;
    } else {
        control(&["enable", TIMER])?;
    }
    let when = plan.at.strftime("%H:%M");
    let from = if runs { "" } else { ", once systemd runs" };
    context.output.info(&format!(
        "every day at {when}, up to 30 minutes later, `btw-backup run` is done{from}"
    ));
    if !plan.is_root {
        context
            .output
            .info("so that it is also done when you are not logged in: loginctl enable-linger");
    }
    Ok(Exit::Done)
}

pub fn remove(context: &Context, dry_run: bool) -> Result<bool, Error> {
    let found = installed(context)?;
    if found.is_empty() {
        return Ok(false);
    }
    for (path, _) in &found {
        let word = if dry_run {
            "would be removed"
        } else {
            "removed"
        };
        context.output.info(&format!("{word}: {}", path.display()));
    }
    if dry_run {
        return Ok(true);
    }
    let runs = std::path::Path::new(SYSTEMD_RUNS).exists();
    if runs {
        control(&["disable", "--now", TIMER])?;
    } else {
        control(&["disable", TIMER])?;
    }
    for (path, _) in &found {
        config::remove(path)?;
    }
    if runs {
        control(&["daemon-reload"])?;
    }
    Ok(true)
}

/// The units that are there, and what they say.
pub fn installed(_context: &Context) -> Result<Vec<(PathBuf, String)>, Error> {
    let dir = dir()?;
    let paths = [TIMER, SERVICE].map(|name| dir.join(name));
    let there = paths.into_iter().filter(|path| path.exists());
    there
        .map(|path| {
            let text = std::fs::read_to_string(&path);
            let text = text.map_err(|error| Error::file("read", &path, error))?;
            Ok((path, text))
        })
        .collect()
}

/// Whether a service is installed that is not the one of this plan.
pub fn is_stale(plan: &Plan) -> bool {
    let Ok(dir) = dir() else { return false };
    let installed = std::fs::read_to_string(dir.join(SERVICE));
    let [(_, service), _] = units(plan);
    installed.is_ok_and(|installed| without_program(&installed) != without_program(&service))
}

/// The program may be asked from another place.
fn without_program(service: &str) -> String {
    let others = service
        .lines()
        .filter(|line| !line.starts_with("ExecStart="));
    others.flat_map(|line| [line, "\n"]).collect()
}

/// When it is done next, if systemd says so.
pub fn next() -> Option<String> {
    let args = systemctl(&["list-timers", "--no-pager", TIMER]);
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let ended = tool("systemctl", &args, "").ok()?;
    let text = String::from_utf8(ended.out).ok()?;
    Some(text.trim_end().to_owned()).filter(|text| ended.end.is_success() && !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::{Plan, quoted, units};
    use std::path::PathBuf;

    #[test]
    fn names_are_quoted() {
        for (word, expected) in [
            ("/usr/bin/x", "/usr/bin/x"),
            ("/a b", "\"/a b\""),
            ("/100%", "/100%%"),
            ("/a\"b\\c", "\"/a\\\"b\\\\c\""),
        ] {
            assert_eq!(quoted(word), expected);
        }
    }

    #[test]
    fn the_units_of_the_package_are_those_that_are_installed() {
        let plan = Plan {
            program: PathBuf::from("/usr/bin/btw-backup"),
            config_dir: None,
            at: jiff::civil::time(3, 0, 0, 0),
            places: Vec::new(),
            has_programs: true,
            is_root: true,
        };
        let packaged = [
            include_str!("../../package/btw-backup.service"),
            include_str!("../../package/btw-backup.timer"),
        ];
        for ((name, text), packaged) in units(&plan).iter().zip(packaged) {
            assert_eq!(text, packaged, "{name}");
        }
    }
}
