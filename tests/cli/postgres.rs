//! A PostgreSQL server of the tests' own: a temporary cluster on a Unix socket. It ends with the tests, however they end.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use crate::tools::{Home, is_root, tool};

/// Whom the server runs as when root runs the tests: it refuses root.
const NOBODY: &str = "65534";

const SCRIPT: &str = r#"
set -eu
trap 'rm -rf "$dir"' EXIT
trap 'kill -INT "$pid"; wait "$pid"; exit' TERM
"$bin/initdb" -D "$dir/data" -U postgres -A trust -E UTF8 --locale=C.UTF-8 --no-sync > /dev/null
printf 'local all nobody peer\nlocal all guarded scram-sha-256\nlocal all all trust\n' > "$dir/data/pg_hba.conf"
"$bin/postgres" -D "$dir/data" -c unix_socket_directories="$dir" -c listen_addresses= -c fsync=off 2> "$dir/log" &
pid=$!
wait "$pid"
"#;

/// The running server.
pub struct Server {
    /// Where its socket is.
    pub dir: PathBuf,
}

/// The server, started when it is first asked for.
pub fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(Server::start)
}

fn programs() -> PathBuf {
    let found = fs::read_dir("/usr/lib/postgresql").expect("tests/run installs postgresql");
    let bins = found.map(|entry| entry.unwrap().path().join("bin"));
    bins.filter(|bin| bin.join("initdb").exists())
        .max()
        .expect("tests/run installs postgresql")
}

impl Server {
    fn start() -> Self {
        let dir = std::env::temp_dir().join(format!("btw-pg-{}", uuid::Uuid::new_v4().simple()));
        fs::create_dir(&dir).unwrap();
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM"]);
        if is_root() {
            tool("chown", &[NOBODY, dir.to_str().unwrap()]);
            command.args(["--reuid", NOBODY, "--regid", NOBODY, "--clear-groups"]);
        }
        command
            .args(["sh", "-c", SCRIPT])
            .env("dir", &dir)
            .env("bin", programs())
            .current_dir("/")
            .stdin(Stdio::null());
        // The signal comes when the thread ends that started the server: this one stays.
        std::thread::spawn(move || {
            command.spawn().unwrap().wait().unwrap();
        });
        let server = Self { dir };
        let begun = Instant::now();
        while !server.answers() {
            assert!(
                begun.elapsed() < Duration::from_mins(1),
                "the server does not start: {:?}",
                fs::read_to_string(server.dir.join("log"))
            );
            std::thread::sleep(Duration::from_millis(100));
        }
        server
    }

    /// Fills a database with pgbench's tables.
    pub fn fill(&self, database: &str, scale: &str) {
        let output = Command::new(programs().join("pgbench"))
            .args(["-i", "-q", "-s", scale, database])
            .env("PGHOST", &self.dir)
            .env("PGUSER", "postgres")
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
    }

    fn psql(&self, database: &str) -> Command {
        let mut command = Command::new("psql");
        command
            .args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"])
            .env("PGHOST", &self.dir)
            .env("PGUSER", "postgres")
            .env("PGDATABASE", database)
            .env("PGOPTIONS", "-c client_min_messages=warning");
        command
    }

    fn answers(&self) -> bool {
        let output = self.psql("postgres").args(["-c", "SELECT 1"]).output();
        output.is_ok_and(|output| output.status.success())
    }

    /// What a query gives.
    #[track_caller]
    pub fn sql(&self, database: &str, query: &str) -> String {
        let output = self.psql(database).args(["-c", query]).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{query}: {error}");
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    /// Makes a database anew.
    pub fn create(&self, database: &str) {
        let name = format!("\"{}\"", database.replace('"', "\"\""));
        self.sql("postgres", &format!("DROP DATABASE IF EXISTS {name}"));
        self.sql("postgres", &format!("CREATE DATABASE {name}"));
    }

    /// Has the client read a dump into a database.
    #[track_caller]
    pub fn load(&self, database: &str, dump: &Path) {
        let mut command = self.psql(database);
        let output = command.args(["-f"]).arg(dump).stdout(Stdio::null());
        let output = output.output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{error}");
    }

    /// What `pg_dump` says of a database, without what differs in each dump.
    #[track_caller]
    pub fn dumped(&self, database: &str) -> String {
        let mut command = Command::new("pg_dump");
        command
            .env("PGHOST", &self.dir)
            .env("PGUSER", "postgres")
            .env("PGDATABASE", database);
        let output = command.output().unwrap();
        assert!(output.status.success());
        without_key(&String::from_utf8(output.stdout).unwrap())
    }

    /// Backs up with the program; `more` are arguments behind `db`.
    pub fn backup(&self, home: &Home, more: &[&str]) -> crate::tools::Said {
        let args: Vec<&str> = [&["db"], more].concat();
        let mut command = home.command(&args);
        command.env("PGHOST", &self.dir).env("PGUSER", "postgres");
        crate::tools::Said::of(command.output().unwrap())
    }
}

/// A dump without the key that is made up for each.
pub fn without_key(dump: &str) -> String {
    let is_key = |line: &&str| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict");
    dump.lines()
        .filter(|line| is_key(line))
        .collect::<Vec<_>>()
        .join("\n")
}
