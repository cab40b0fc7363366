//! `--json` for every command: one document, of one form.

use std::fs;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::run::{configure, source};
use crate::tools::{Home, Said, skip};

/// Checks documents, one a line, by a validator that knows nothing of this program.
const VALIDATE: &str = r"
import json, sys
import jsonschema
schema = json.load(open(sys.argv[1]))
validator = jsonschema.validators.validator_for(schema)
validator.check_schema(schema)
checker = validator(schema)
for line in open(sys.argv[2]):
    document = json.loads(line)
    for error in checker.iter_errors(document):
        print(document['command'], '/'.join(map(str, error.absolute_path)), error.message[:300])
";

struct Collected<'a> {
    home: &'a Home,
    documents: Vec<Value>,
}

impl Collected<'_> {
    /// Runs a command; its whole standard output must be one document that says how it ended.
    #[track_caller]
    fn run(&mut self, code: i32, args: &[&str]) -> Value {
        let said = self.home.run(&[&["--json"], args].concat());
        self.take(code, &said)
    }

    #[track_caller]
    fn take(&mut self, code: i32, said: &Said) -> Value {
        let document: Value = serde_json::from_str(&said.out)
            .unwrap_or_else(|error| panic!("{error}: {}{}", said.out, said.err));
        assert_eq!(said.code, Some(code), "{}{}", said.out, said.err);
        assert_eq!(document["exit_code"], code, "{document:#}");
        self.documents.push(document.clone());
        document
    }
}

#[test]
fn every_command_answers_in_one_document_of_one_form() {
    let home = Home::new();
    let src = source(&home, "a");
    fs::create_dir_all(home.path("a/sub")).unwrap();
    fs::write(home.path("a/sub/odd\nname"), "x").unwrap();
    fs::create_dir(home.path("remote")).unwrap();
    configure(
        &home,
        &format!(
            "[remote.r]\nurl = 'file://{}'\nmanual = true\n[notify.n]\ncommand = ['true']\n",
            home.path("remote").display()
        ),
    );
    let mut all = Collected {
        home: &home,
        documents: Vec::new(),
    };
    all.run(0, &["fs-init", "--type", "rdiff", &src, "a"]);
    all.run(0, &["fs", &src, "a"]);
    let same = all.run(0, &["fs", &src, "a"]);
    assert_eq!(
        (&same["outcome"], &same["version"]["seq"]),
        (&"unchanged".into(), &1.into())
    );
    fs::write(home.path("a/file"), "changed").unwrap();
    let changed = all.run(0, &["fs", &src, "a"]);
    assert_eq!(changed["outcome"], "committed");
    all.run(0, &["fs", "--dry-run", &src, "a"]);
    all.run(0, &["cmd", "c", "c", "--", "echo", "hello"]);
    all.run(1, &["cmd", "c", "c", "--", "false"]);
    all.run(1, &["db", "nothing", "d"]);
    for args in [
        &["list"][..],
        &["list", "a"],
        &["ls", "-R", "a"],
        &["find", "a", "odd*"],
        &["history", "a", "file"],
        &["diff", "a"],
        &["verify", "--deep"],
        &["plot", "a"],
        &["plot", "--simulate", "90d", "--partitioned", "1d,7d"],
        &["prune", "--dry-run", "--keep-last", "1", "a"],
        &["pin", "a", "v1", "--note", "x"],
        &["unpin", "a", "v1"],
        &["delete", "--dry-run", "a", "v1"],
        &["delete", "a", "v1"],
        &["undelete", "--dry-run", "a"],
        &["undelete", "a"],
        &["gc", "a"],
        &["sync-state", "--list"],
        &["sync", "--dry-run"],
        &["sync"],
        &["list", "--remote", "r"],
        &["prune", "--remote", "r", "--dry-run", "a"],
        &["prune", "--remote", "r", "--now", "a"],
        &["verify", "--remote", "r"],
        &["repair", "a"],
        &["sync-state", "--reset"],
        &["run", "--dry-run"],
        &["run"],
        &["status"],
        &["notify"],
        &["config", "show"],
        &["config", "check"],
        &["schedule", "show"],
        &["schedule", "install", "--cron", "--dry-run"],
        &["schema"],
    ] {
        all.run(0, args);
    }
    restores_and_faults(&mut all, &src);
    validate(&home, &all.documents);
}

fn restores_and_faults(all: &mut Collected<'_>, src: &str) {
    let home = all.home;
    let path = |name: &str| home.path(name).display().to_string();
    all.run(3, &["compare", "--at", "v1", "a", src]);
    all.run(0, &["restore", "--dry-run", "a", &path("new")]);
    all.run(0, &["restore", "a", &path("new")]);
    fs::write(home.path("new/file"), "other").unwrap();
    all.run(
        0,
        &["restore", "--in-place", "--dry-run", "a", &path("new")],
    );
    all.run(0, &["restore", "--in-place", "a", &path("new")]);
    all.run(0, &["export", "a", &path("a.tar")]);
    all.run(0, &["man", &path("man")]);
    all.run(1, &["import", &path("nothing"), "i"]);
    let refused = all.run(1, &["list", "nothing"]);
    assert_eq!(refused["messages"][0]["level"], "error");
    all.run(2, &["ebs", "status"]);
    // Damage, in the middle of a list too.
    for pack in fs::read_dir(home.store("a").join("catalogs"))
        .unwrap()
        .flatten()
    {
        fs::write(pack.path(), "rubbish").unwrap();
    }
    all.run(5, &["verify", "a"]);
    all.run(5, &["ls", "-R", "a"]);
    all.run(5, &["status"]);
    // What writes content leaves no place for a document.
    for args in [
        &["cat", "a", "file"][..],
        &["export", "a", "-"],
        &["restore", "c", "-"],
        &["completions", "bash"],
    ] {
        let said = home.run(&[&["--json"], args].concat()).ends(2);
        assert!(said.err.contains("--json cannot be used"), "{}", said.err);
    }
}

fn validate(home: &Home, documents: &[Value]) {
    let (schema, file) = (home.path("schema.json"), home.path("documents"));
    fs::write(&schema, home.run(&["schema"]).ends(0).out).unwrap();
    let lines: Vec<String> = documents.iter().map(Value::to_string).collect();
    fs::write(&file, lines.join("\n")).unwrap();
    let output = Command::new("/usr/bin/python3")
        .args(["-c", VALIDATE])
        .args([&schema, &file])
        .output()
        .unwrap();
    let (out, err) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    if err.contains("No module named") {
        return skip("documents: python3-jsonschema is needed");
    }
    assert!(output.status.success() && out.is_empty(), "{out}{err}");
    let mut commands: Vec<&str> = documents
        .iter()
        .map(|document| document["command"].as_str().unwrap())
        .collect();
    commands.sort_unstable();
    commands.dedup();
    println!(
        "documents: {} answers of {} commands are as the schema says",
        documents.len(),
        commands.len()
    );
}

/// Every command that there is knows `--json`, and is tried above.
#[test]
fn k2_no_command_is_forgotten() {
    let home = Home::new();
    let help = home.run(&["--help"]).ends(0).out;
    let commands = help.lines().skip_while(|line| *line != "Commands:").skip(1);
    let commands: Vec<&str> = commands
        .take_while(|line| !line.is_empty())
        .filter(|line| line.starts_with("  ") && !line.starts_with("   "))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(commands.len() >= 30, "{commands:?}");
    let schema = fs::read_to_string("src/cli/answers.json").unwrap();
    for command in commands {
        let said = home.run(&[command, "--help"]).ends(0).out;
        assert!(said.contains("--json"), "{command}");
        let is_known =
            schema.contains(&format!("\"{command}\"")) || schema.contains(&format!("\"{command} "));
        assert!(
            is_known || ["cat", "completions"].contains(&command),
            "{command} is not in the schema"
        );
    }
}

/// Cron's world: no environment, no input, no output, an odd language.
#[test]
fn k6_nothing_is_needed_from_the_environment() {
    let home = Home::new();
    let src = source(&home, "a");
    let program = crate::tools::PROGRAM;
    let conf = home.path("conf").display().to_string();
    let clean = |script: &str| {
        let output = Command::new("/bin/sh")
            .env_clear()
            .args(["-c", script, "sh", program, "--config-dir", &conf])
            .output();
        Said::of(output.unwrap())
    };
    clean(&format!("\"$@\" fs --init '{src}' a")).ends(0);
    // Standard streams that are closed, not only empty.
    fs::write(home.path("a/file"), "2").unwrap();
    clean("\"$@\" run <&- >&- 2>&-").ends(0);
    assert_eq!(
        fs::read(home.restored("latest", "a").join("file")).unwrap(),
        b"2"
    );
    clean("\"$@\" status >&-").ends(0);
    clean("LC_ALL=xx_XX.KOI8-R LANG=tr_TR TZ=Mars/Olympus \"$@\" list a").ends(0);
    clean("TERM= COLUMNS=x \"$@\" --help | head -1").ends(0);
    // Whoever reads no further has what was wanted; a full disk behind a pipe is told.
    clean("\"$@\" list --json | true").ends(0);
    clean("\"$@\" list --json > /dev/full")
        .ends(1)
        .complains("No space left");
    clean("\"$@\" status > /dev/full")
        .ends(1)
        .complains("No space left");
    // No home and no configuration named.
    let mut command = Command::new(program);
    let said = Said::of(
        command
            .env_clear()
            .args(["list"])
            .stdin(Stdio::null())
            .output()
            .unwrap(),
    );
    assert!(
        said.code == Some(2) && said.err.contains("HOME") || said.code == Some(1),
        "{}",
        said.err
    );
}

/// Colours are for terminals, and for those who want them.
#[test]
fn colours_are_only_for_terminals() {
    let home = Home::new();
    let escape = |text: &str| text.contains('\u{1b}');
    for args in [&["--help"][..], &["list", "--nonsense"]] {
        let said = home.run(args);
        assert!(
            !escape(&said.out) && !escape(&said.err),
            "{}{}",
            said.out,
            said.err
        );
    }
    let on_terminal = |env: &str| {
        let script = format!(
            "{env} script -qec '{} --help' /dev/null",
            crate::tools::PROGRAM
        );
        let output = Command::new("/bin/sh")
            .args(["-c", &script])
            .env("TERM", "xterm")
            .stdin(Stdio::null())
            .output();
        String::from_utf8_lossy(&output.unwrap().stdout).into_owned()
    };
    if !std::path::Path::new("/usr/bin/script").exists() {
        return skip("colours: script is needed");
    }
    assert!(escape(&on_terminal("")));
    assert!(!escape(&on_terminal("NO_COLOR=1")));
}
