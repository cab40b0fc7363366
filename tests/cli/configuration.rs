//! `config`, `completions`, `man`, `schema`, `schedule`: what surrounds the work.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::run::{configure, source};
use crate::tools::{Home, Said, is_root, skip, tool};

#[test]
fn a_first_configuration_is_written_and_right() {
    let home = Home::new();
    let conf = home.path("conf/config.toml");
    fs::remove_file(&conf).unwrap();
    let root = home.path("stores");
    home.run(&["config", "init", "--root", root.to_str().unwrap()])
        .ends(0);
    home.run(&["config", "init"])
        .ends(1)
        .complains("is there already");
    home.run(&["config", "check"]).ends(0);
    let shown = home.run(&["config", "show"]).ends(0).out;
    assert!(
        shown.contains(&format!("ROOT_PATH = \"{}\"", root.display()))
            && shown.contains("# line 4\n"),
        "{shown}"
    );
    assert!(
        shown.contains("max_age = \"26h\"") && shown.contains("# default\n"),
        "{shown}"
    );
    // Every line that is an example can be used.
    let text = fs::read_to_string(&conf).unwrap();
    let uncommented = |line: &str| {
        let rest = line
            .strip_prefix('#')
            .filter(|rest| rest.starts_with('[') || rest.starts_with(char::is_alphabetic));
        rest.unwrap_or(line).to_owned()
    };
    let all: Vec<String> = text.lines().map(uncommented).collect();
    assert!(all.iter().filter(|line| line.starts_with('[')).count() >= 6);
    fs::write(&conf, all.join("\n")).unwrap();
    let said = home.run(&["config", "check"]);
    assert!(
        !said.err.contains("parse error") && !said.err.contains("line "),
        "{}",
        said.err
    );
}

#[test]
fn k3_everything_that_is_wrong_is_said_with_its_place() {
    let home = Home::new();
    let a = source(&home, "a");
    home.fs(Path::new(&a), "a").ends(0);
    home.configure_source(
        "a",
        "MAX_INCREMENTAL_SPAN = \"24h\"",
        "MAX_INCREMENTAL_SPAN = \"24\"",
    );
    fs::create_dir(home.path("conf/db")).unwrap();
    configure(
        &home,
        "[remote.r]\nurl = 's3://b'\nparallel = 0\n[remote.none]\nurl = 's3://c'\nstores = ['nothing-like-it']\n[job.x]\nsource = 'relative'\n[job.y]\nsource = '/nonexistent'\nbefore = ['no-such-program']\nevery = 'often'\n[job.z]\ncommand = ['no-such-program']\n[job.sync]\nsource = '/x'\n[notify.n]\nmail = 'a'\nsmtp = 'h:99999'\n[notify.m]\nmail = 'root'\nsendmail = '/no/sendmail'\n[ebs]\nvolumes = { vol-xyz = 'x' }\n",
    );
    let said = home.run(&["config", "check"]).ends(2);
    for expected in [
        "line 4, column 1: [remote.r]: parallel",
        "line 9, column 1: [job.x]: source must be an absolute path, not 'relative'",
        "line 13, column 1: [job.y]: every",
        "[job.sync]: 'sync' is the name of a step",
        "line 20, column 1: [notify.n]: smtp = 'h:99999': '99999' is no port",
        "[notify.m]: there is no /no/sendmail",
        "line 25, column 1: [ebs]: volumes: 'vol-xyz' is no volume",
        "warning: z: there is no program no-such-program",
        "warning: [remote.none]: its stores match none of a",
        "config.toml: line 12, column 1: MAX_INCREMENTAL_SPAN",
    ] {
        assert!(said.err.contains(expected), "{expected}\n{}", said.err);
    }
    // None of it keeps anything else from being done.
    home.configure_source(
        "a",
        "MAX_INCREMENTAL_SPAN = \"24\"",
        "MAX_INCREMENTAL_SPAN = \"24h\"",
    );
    home.run(&["fs", "--no-sync", &a, "a"]).ends(0);
    // The program of y is run before it, so its source may come to be.
    assert!(!said.err.contains("there is no /nonexistent"));
}

#[test]
fn completions_pages_and_the_schema_are_usable() {
    let home = Home::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let script = home.run(&["completions", shell]).ends(0).out;
        assert!(
            script.contains("btw-backup") && script.contains("undelete"),
            "{shell}"
        );
        if shell == "bash" {
            let checked = format!(
                "{script}\nCOMP_WORDS=(btw-backup undel); COMP_CWORD=1; _btw__backup btw-backup undel btw-backup; echo \"${{COMPREPLY[@]}}\""
            );
            assert_eq!(tool("bash", &["-c", &checked]).trim(), "undelete");
        }
    }
    let dir = home.path("man");
    home.run(&["man", dir.to_str().unwrap()]).ends(0);
    let pages = fs::read_dir(&dir)
        .unwrap()
        .flatten()
        .map(|entry| entry.path());
    for page in pages {
        let output = Command::new("man")
            .args(["--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z"])
            .arg(&page)
            .output()
            .unwrap();
        assert!(
            output.status.success() && output.stderr.is_empty(),
            "{}: {}",
            page.display(),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let schema: Value = serde_json::from_str(&home.run(&["schema"]).ends(0).out).unwrap();
    assert_eq!(schema["properties"]["schema"]["const"], 1);
    home.run(&["completions", "csh"]).ends(2);
}

#[test]
#[expect(
    clippy::too_many_lines,
    reason = "one story, from an empty crontab back to one"
)]
fn a_schedule_is_installed_shown_and_removed_by_cron() {
    if !is_root() || !Path::new("/usr/bin/crontab").exists() {
        return skip("crontabs: root and cron are needed");
    }
    // A user of its own, whose crontab nobody else uses.
    let name = "btw-schedule-test";
    let _ = Command::new("userdel").arg(name).output();
    tool(
        "useradd",
        &["--no-create-home", "--home-dir", "/nonexistent", name],
    );
    let cleaner = User(name);
    let home = Home::new();
    // Everything must be within that user's reach.
    tool("chmod", &["-R", "a+rX", home.dir.path().to_str().unwrap()]);
    for dir in ["conf", "root"] {
        tool("chown", &["-R", name, home.path(dir).to_str().unwrap()]);
    }
    let run = |args: &[&str]| {
        let command = home.command(args);
        let mut other = Command::new("setpriv");
        other
            .args(["--reuid", name, "--regid", name, "--init-groups"])
            .arg(crate::tools::PROGRAM)
            .args(args);
        other.env_clear().envs(
            command
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
        Said::of(other.output().unwrap())
    };
    configure(&home, "[job.x]\ncommand = ['echo', 'x']\n");
    let crontab = || {
        String::from_utf8(
            Command::new("crontab")
                .args(["-l", "-u", name])
                .output()
                .unwrap()
                .stdout,
        )
        .unwrap()
    };
    tool(
        "sh",
        &[
            "-c",
            &format!("echo '5 4 * * * true # mine' | crontab -u {name} -"),
        ],
    );
    assert!(
        run(&["schedule", "show"])
            .ends(0)
            .out
            .contains("nothing is installed")
    );
    let dry = run(&[
        "schedule",
        "install",
        "--cron",
        "--at",
        "02:07",
        "--dry-run",
    ])
    .ends(0)
    .out;
    assert!(dry.contains("7 2 * * * PATH=/usr/local/sbin"), "{dry}");
    assert!(!crontab().contains("PATH"));
    run(&["schedule", "install", "--cron", "--at", "02:07"]).ends(0);
    run(&["schedule", "install", "--cron", "--at", "03:08"]).ends(0);
    let table = crontab();
    assert!(
        table.contains("# mine\n") && table.matches("btw-backup schedule").count() == 1,
        "{table}"
    );
    let line = table
        .lines()
        .find(|line| line.starts_with("8 3 * * * "))
        .unwrap();
    assert!(run(&["schedule", "show"]).ends(0).out.contains(line));
    // What stands there works in cron's environment.
    let output = Command::new("setpriv")
        .args([
            "--reuid",
            name,
            "--regid",
            name,
            "--init-groups",
            "env",
            "-i",
            "HOME=/nonexistent",
            "/bin/sh",
            "-c",
            line.strip_prefix("8 3 * * * ").unwrap(),
        ])
        .output()
        .unwrap();
    assert!(
        output.status.success() && output.stdout.is_empty(),
        "{output:?}"
    );
    run(&["schedule", "remove"]).ends(0);
    assert_eq!(
        crontab()
            .lines()
            .filter(|line| !line.starts_with('#'))
            .collect::<Vec<_>>(),
        ["5 4 * * * true # mine"]
    );
    run(&["schedule", "install", "--cron", "--at", "25:00"])
        .ends(2)
        .complains("03:00");
    drop(cleaner);
}

struct User(&'static str);

impl Drop for User {
    fn drop(&mut self) {
        let _ = Command::new("crontab").args(["-r", "-u", self.0]).output();
        let _ = Command::new("userdel").arg(self.0).output();
    }
}

/// What systemd itself says of the units, with odd names in them.
#[test]
fn units_are_what_systemd_understands() {
    if !Path::new("/usr/bin/systemd-analyze").exists() {
        return skip("units: systemd is needed");
    }
    let home = Home::new();
    let odd = home.path("root of % $HOME \"stores\"");
    fs::create_dir(&odd).unwrap();
    home.configure(&odd);
    let exposure = |more: &str| {
        configure(&home, more);
        let dry = home
            .run(&[
                "schedule",
                "install",
                "--systemd",
                "--dry-run",
                "--at",
                "04:30",
            ])
            .ends(0)
            .out;
        let dir = home.path("units");
        fs::create_dir_all(&dir).unwrap();
        let (_, rest) = dry.split_once("btw-backup.service\n").unwrap();
        let (service, timer) = rest.split_once("btw-backup.timer\n").unwrap();
        let service = service.rsplit_once("\n# ").unwrap().0;
        assert!(timer.contains("OnCalendar=*-*-* 04:30:00\n"), "{timer}");
        fs::write(dir.join("btw-backup.service"), service).unwrap();
        fs::write(dir.join("btw-backup.timer"), timer).unwrap();
        let path = |name: &str| dir.join(name).to_str().unwrap().to_owned();
        let (service, timer) = (path("btw-backup.service"), path("btw-backup.timer"));
        let output = Command::new("systemd-analyze")
            .args(["verify", "--man=no", &service, &timer])
            .output()
            .unwrap();
        assert!(
            output.status.success() && output.stderr.is_empty(),
            "{output:?}"
        );
        let text = tool(
            "systemd-analyze",
            &["security", "--offline=true", "--no-pager", &service],
        );
        let last = text.lines().last().unwrap();
        let number = last
            .split_whitespace()
            .find_map(|word| word.parse::<f64>().ok());
        number.unwrap()
    };
    let alone = exposure("");
    let with_hooks = exposure("[hooks]\nbefore = ['true']\n");
    println!(
        "units: exposure {alone} alone, {with_hooks} with hooks (10 is without any hardening)"
    );
    if is_root() {
        assert!(alone < 5.0 && with_hooks < 9.5);
    }
}

#[test]
fn schedules_are_installed_with_systemd() {
    let has_systemd = Path::new("/usr/bin/systemctl").exists();
    if !has_systemd || is_root() && Path::new("/etc/systemd/system/btw-backup.timer").exists() {
        return skip("installing units: systemctl is needed, and none may be there");
    }
    let home = Home::new();
    // As a user, whose units are below HOME; the one that would be asked is not there.
    let units = home.path("config");
    let run = |args: &[&str]| {
        let mut command = home.command(args);
        command
            .env("XDG_CONFIG_HOME", &units)
            .env("SYSTEMD_OFFLINE", "1");
        command
    };
    if is_root() {
        // Root's are those of the machine: in a file system of its own.
        let script = "mount -t tmpfs none /etc/systemd/system && \"$@\" schedule install --systemd && ls -R /etc/systemd/system && \"$@\" schedule show && \"$@\" schedule remove && find /etc/systemd/system -type f -o -type l";
        let mut command = Command::new("unshare");
        command.args([
            "--mount",
            "/bin/sh",
            "-ec",
            script,
            "sh",
            crate::tools::PROGRAM,
        ]);
        let base = run(&[]);
        command.env_clear().envs(
            base.get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
        let said = Said::of(command.output().unwrap()).ends(0);
        assert!(
            said.out.contains("timers.target.wants:\nbtw-backup.timer"),
            "{}",
            said.out
        );
        assert!(
            said.out.contains("OnCalendar=*-*-* 03:00:00"),
            "{}",
            said.out
        );
        assert!(
            said.out
                .trim_end()
                .ends_with("removed: /etc/systemd/system/btw-backup.service"),
            "{}",
            said.out
        );
    }
    let mode = fs::metadata(home.path("conf"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777 & !0o755, 0);
}
