//! `ebs`: the real `aws` program against a real EC2 server (moto's).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::run::{configure, wait_for};
use crate::tools::{Home, Said, skip};

struct Server {
    child: Child,
    port: u16,
    aws: PathBuf,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn found(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/bin");
    let mut dirs = std::env::split_paths(&path).chain([tools]);
    dirs.find_map(|dir| Some(dir.join(program)).filter(|path| path.is_file()))
}

impl Server {
    fn start() -> Option<Self> {
        let (moto, aws) = (found("moto_server")?, found("aws")?);
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let child = Command::new(moto)
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { child, port, aws };
        wait_for(|| std::net::TcpStream::connect(("127.0.0.1", port)).is_ok());
        Some(server)
    }

    fn prepare(&self, command: &mut Command, home: &Home) {
        let dir = self.aws.parent().unwrap().display().to_string();
        command
            .env("PATH", format!("{dir}:{}", std::env::var("PATH").unwrap()))
            .env(
                "AWS_ENDPOINT_URL",
                format!("http://127.0.0.1:{}", self.port),
            )
            .env("AWS_CONFIG_FILE", home.path("aws"))
            .env("AWS_ACCESS_KEY_ID", "testing")
            .env("AWS_SECRET_ACCESS_KEY", "testing-secret");
        if let Some(root) = std::env::var_os("PYENV_ROOT") {
            command.env("PYENV_ROOT", root);
        }
    }

    fn aws(&self, home: &Home, args: &[&str]) -> Value {
        let mut command = Command::new(&self.aws);
        command
            .args(["ec2", "--output", "json", "--region", "eu-west-1"])
            .args(args);
        self.prepare(&mut command, home);
        let output = command.output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
    }

    fn run(&self, home: &Home, args: &[&str]) -> Said {
        let mut command = home.command(args);
        self.prepare(&mut command, home);
        Said::of(command.output().unwrap())
    }

    fn volume(&self, home: &Home) -> String {
        let made = self.aws(
            home,
            &[
                "create-volume",
                "--size",
                "1",
                "--availability-zone",
                "eu-west-1a",
            ],
        );
        made["VolumeId"].as_str().unwrap().to_owned()
    }

    fn snapshots(&self, home: &Home, volume: &str) -> Vec<String> {
        let filter = format!("Name=volume-id,Values={volume}");
        let found = self.aws(
            home,
            &[
                "describe-snapshots",
                "--owner-ids",
                "self",
                "--filters",
                &filter,
            ],
        );
        let rows = found["Snapshots"].as_array().unwrap().iter();
        rows.map(|row| row["SnapshotId"].as_str().unwrap().to_owned())
            .collect()
    }
}

#[test]
fn snapshots_are_made_once_a_day_and_only_these_volumes_are_touched() {
    let Some(server) = Server::start() else {
        return skip("ebs: moto_server and aws are needed");
    };
    let home = Home::new();
    fs::write(
        home.path("aws"),
        "[profile night]\nregion = eu-west-1\naws_access_key_id = testing\naws_secret_access_key = testing-secret\n[default]\nregion = us-east-1\n",
    )
    .unwrap();
    let [root, data, other] = [(); 3].map(|()| server.volume(&home));
    server.aws(
        &home,
        &[
            "create-snapshot",
            "--volume-id",
            &other,
            "--description",
            "not ours",
        ],
    );
    server
        .run(&home, &["ebs", "status"])
        .ends(2)
        .complains("write [ebs]");
    configure(
        &home,
        &format!(
            "[ebs]\nkeep = 2\nprofile = 'night'\nvolumes = {{ {root} = 'root disk', {data} = 'data' }}\n"
        ),
    );
    let status = server.run(&home, &["ebs", "status"]).ends(0).out;
    let mut lines: Vec<&str> = status.lines().collect();
    assert_eq!(lines.remove(0), "VOLUME\tSNAPSHOT\tSTATUS\tDATE\tDESC");
    lines.sort_unstable();
    let mut expected = vec![
        format!("{root}\t-\t-\t-\troot disk"),
        format!("{data}\t-\t-\t-\tdata"),
    ];
    expected.sort();
    assert_eq!(lines, expected);
    let dry = server.run(&home, &["ebs", "dryrun"]).ends(0).out;
    assert!(
        dry.starts_with("*** DRY RUN ***\n")
            && dry.contains(&format!("creating snapshot for {root} \"root disk\"\n")),
        "{dry}"
    );
    assert!(server.snapshots(&home, &root).is_empty());
    let said = server.run(&home, &["ebs", "backup"]).ends(0).out;
    for heading in [
        "\nCREATING SNAPSHOTS\n",
        "\nDELETING OLD SNAPSHOTS\n",
        "\nDone.\n",
    ] {
        assert!(said.contains(heading), "{said}");
    }
    let first = server.snapshots(&home, &root);
    assert_eq!(
        (
            first.len(),
            server.snapshots(&home, &data).len(),
            server.snapshots(&home, &other).len()
        ),
        (1, 1, 1)
    );
    // Running twice is safe.
    let again = server.run(&home, &["ebs", "backup"]).ends(0).out;
    assert!(
        again.contains(&format!(
            "{root} has already snapshot {} for today \"root disk\"\n",
            first[0]
        )),
        "{again}"
    );
    assert_eq!(server.snapshots(&home, &root), first);
    let json = server.run(&home, &["ebs", "status", "--json"]).ends(0).out;
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["volumes"].as_array().unwrap().len(), 2);
    // As a part of the night's work.
    let run = server.run(&home, &["run", "ebs"]).ends(0).out;
    assert!(run.contains("ebs  done"), "{run}");
}

#[test]
fn old_ones_go_after_the_new_one_is_made_and_a_failure_deletes_nothing() {
    let Some(server) = Server::start() else {
        return skip("ebs: moto_server and aws are needed");
    };
    let home = Home::new();
    let volume = server.volume(&home);
    configure(
        &home,
        &format!("[ebs]\nkeep = 2\nregion = 'eu-west-1'\nvolumes = {{ {volume} = 'data' }}\n"),
    );
    for name in ["a", "b", "c", "d"] {
        server.aws(
            &home,
            &[
                "create-snapshot",
                "--volume-id",
                &volume,
                "--description",
                name,
            ],
        );
    }
    let before = server.snapshots(&home, &volume);
    // Tomorrow, as far as this program is concerned.
    let tomorrow = |args: &[&str]| {
        let mut command = Command::new("faketime");
        command
            .args(["-f", "+1d"])
            .arg(crate::tools::PROGRAM)
            .args(args);
        let base = home.command(&[]);
        command.env_clear().envs(
            base.get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
        server.prepare(&mut command, &home);
        command
            .env("DONT_FAKE_MONOTONIC", "1")
            .env("FAKETIME_SKIP_CMDS", "aws,python3,python3.11");
        Said::of(command.output().unwrap())
    };
    let dry = tomorrow(&["ebs", "dryrun"]).ends(0).out;
    assert_eq!(dry.matches("\ndeleting ").count(), 3, "{dry}");
    assert_eq!(server.snapshots(&home, &volume), before);
    // A volume that is gone: nothing is made, so nothing goes.
    server.aws(&home, &["delete-volume", "--volume-id", &volume]);
    let failed = tomorrow(&["ebs", "backup"]).ends(1);
    assert!(
        failed.err.contains("InvalidVolume.NotFound"),
        "{}",
        failed.err
    );
    assert_eq!(server.snapshots(&home, &volume), before);
    // No keys, no program: said by name.
    let mut command = home.command(&["ebs", "status"]);
    command.env("PATH", "/nonexistent");
    Said::of(command.output().unwrap())
        .ends(1)
        .complains("the AWS command-line tool is needed");
}
