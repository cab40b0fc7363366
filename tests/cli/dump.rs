//! Databases and command output: `db` and `cmd`, with real servers.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::postgres::{server, without_key};
use crate::tools::{Home, Said, is_root, made_by_hand, skip, tool};

/// Makes a program of a shell script in a directory of its own.
fn script(home: &Home, name: &str, text: &str) -> PathBuf {
    let dir = home.path("bin");
    fs::create_dir_all(&dir).unwrap();
    let path = dir.join(name);
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// Configures a database.
fn configure(home: &Home, database: &str, text: &str) {
    let dir = home.path("conf/db");
    fs::create_dir_all(&dir).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(dir.join(format!("{database}.toml")), text).unwrap();
}

/// The setting that names the directory of the scripts.
fn bin(home: &Home) -> String {
    format!("BIN = \"{}\"\n", home.path("bin").display())
}

fn versions(home: &Home, dst: &str) -> usize {
    let said = home.run(&["list", dst]).ends(0);
    let is_version = |line: &&str| line.contains(" full ") || line.contains(" increment ");
    said.out.lines().filter(is_version).count()
}

/// Processes with this word on their command line.
fn running(word: &str) -> usize {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines
        .filter(|line| {
            let mut words = line.split(|byte| *byte == 0);
            words.any(|found| found == word.as_bytes())
        })
        .count()
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(
            begun.elapsed() < Duration::from_secs(20),
            "still not: {what}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What is left of a run that did not commit: nothing but the log.
#[track_caller]
fn assert_no_leftovers(home: &Home, dst: &str) {
    for area in [
        "objects",
        "manifests",
        "catalogs",
        "deltas",
        "staging",
        "state",
    ] {
        for entry in fs::read_dir(home.store(dst).join(area)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            assert!(
                !name.starts_with("tmp-") && area != "staging",
                "{area}/{name}"
            );
        }
    }
}

const SHOP: &str = r"
    CREATE TABLE item (id int PRIMARY KEY, name text, price numeric);
    INSERT INTO item SELECT n, 'item ' || n || repeat(' x', n % 7), n * 1.25 FROM generate_series(1, 30000) n;
    INSERT INTO item VALUES (0, E'back\\slash \t tab \n line ü \\. end', NULL);
    CREATE VIEW dear AS SELECT * FROM item WHERE price > 100;
    CREATE FUNCTION twice(x int) RETURNS int LANGUAGE sql AS 'SELECT 2 * x';
    CREATE TABLE history (at int, what text);
    SELECT lo_from_bytea(4711, decode(repeat('00ff', 5000), 'hex'));
";

#[test]
fn b2_b70_a_database_is_backed_up_when_it_changes_and_loads_again() {
    let (server, home) = (server(), Home::new());
    server.create("shop");
    server.sql("shop", SHOP);
    server.backup(&home, &["shop", "db/shop"]).ends(0);
    let first = server.dumped("shop");
    for _ in 0..2 {
        let said = server.backup(&home, &["shop", "db/shop"]).ends(0);
        assert!(said.out.contains("no change in the data"), "{}", said.out);
    }
    let mut dumps = vec![first];
    for n in 1..4 {
        server.sql("shop", &format!("UPDATE item SET price = price + 1 WHERE id % 100 = {n}; INSERT INTO history VALUES ({n}, 'more')"));
        let said = server.backup(&home, &["shop", "db/shop"]).ends(0);
        assert!(said.out.contains("increment"), "{}", said.out);
        dumps.push(server.dumped("shop"));
    }
    assert_eq!(versions(&home, "db/shop"), 4);
    home.run(&["verify", "--deep", "db/shop"]).ends(0);
    for (number, dump) in (1..).zip(&dumps) {
        let file = home.restored(&format!("v{number}"), "db/shop");
        let text = fs::read_to_string(&file).unwrap();
        assert_eq!(&without_key(&text), dump, "v{number}");
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        // By hand, with coreutils, zstd and rdiff.
        let by_hand = made_by_hand(&home, "db/shop", number);
        assert_eq!(fs::read_to_string(by_hand).unwrap(), text);
        if number == 1 {
            server.create("again");
            server.load("again", &file);
            assert_eq!(&server.dumped("again"), dump);
        }
    }
}

/// The digest of what `pg_dump` says of a database.
fn digest(dump: &str) -> String {
    btw_backup::digest::Digest::of(dump.as_bytes()).to_string()
}

#[test]
fn b2_pgbench_data_with_updates_between_backups_restores() {
    let (server, home) = (server(), Home::new());
    server.create("bench");
    server.fill("bench", "20");
    let mut dumps = Vec::new();
    for n in 0..4 {
        if n > 0 {
            server.sql("bench", &format!("UPDATE pgbench_accounts SET abalance = abalance + {n} WHERE random() < 0.01; INSERT INTO pgbench_history SELECT 1, 1, i, {n}, '2026-01-01' FROM generate_series(1, 8000) i"));
        }
        server.backup(&home, &["bench", "s"]).ends(0);
        dumps.push(digest(&server.dumped("bench")));
    }
    let said = server.backup(&home, &["bench", "s"]).ends(0);
    assert!(said.out.contains("no change"), "{}", said.out);
    home.run(&["verify", "--deep", "s"]).ends(0);
    for (number, dump) in (1..).zip(&dumps) {
        let file = home.restored(&format!("v{number}"), "s");
        let text = fs::read_to_string(&file).unwrap();
        assert_eq!(&digest(&without_key(&text)), dump, "v{number}");
        if number == 1 {
            server.create("bench again");
            server.load("bench again", &file);
            assert_eq!(&digest(&server.dumped("bench again")), dump);
        }
    }
    let (stored, one) = (bytes_below(&home.store("s")), home.restored("latest", "s"));
    println!(
        "pgbench: 4 versions of {} bytes in {stored}",
        one.metadata().unwrap().len()
    );
}

#[test]
fn g8_passwords_come_from_pass_files_and_connections_from_service_files() {
    let (server, home) = (server(), Home::new());
    server.create("guarded");
    server.sql("guarded", "CREATE TABLE t (n int)");
    server.sql(
        "postgres",
        "DROP ROLE IF EXISTS guarded; CREATE ROLE guarded LOGIN SUPERUSER PASSWORD 'sekret'",
    );
    let run = |passfile: Option<&Path>| {
        let mut command = home.command(&["db", "guarded", "s"]);
        command.env("PGSERVICEFILE", home.path("services"));
        if let Some(passfile) = passfile {
            command.env("PGPASSFILE", passfile);
        }
        Said::of(command.output().unwrap())
    };
    let service = format!("[guarded]\nhost={}\nuser=guarded\n", server.dir.display());
    fs::write(home.path("services"), service).unwrap();
    let passfile = home.path("pass");
    fs::write(&passfile, "*:*:*:guarded:sekret\n").unwrap();
    fs::set_permissions(&passfile, fs::Permissions::from_mode(0o600)).unwrap();
    configure(&home, "guarded", "SERVICE = \"guarded\"\n");
    run(None).ends(1).complains("no password supplied");
    run(Some(&passfile)).ends(0);
    let conninfo = format!(
        "host={} user=guarded passfile='{}'",
        server.dir.display(),
        passfile.display()
    );
    configure(&home, "guarded", &format!("CONNINFO = \"{conninfo}\"\n"));
    assert!(run(None).ends(0).out.contains("no change"));
    configure(&home, "guarded", "SERVICE = \"none\"\n");
    run(None).ends(1).complains("none");
}

#[test]
fn versions_of_a_database_are_handled_like_those_of_a_tree() {
    let (server, home) = (server(), Home::new());
    server.create("handled");
    server.sql("handled", SHOP);
    for n in 0..5 {
        server.sql(
            "handled",
            &format!("UPDATE item SET name = 'changed in {n}' WHERE id = {n}00"),
        );
        server.backup(&home, &["handled", "s"]).ends(0);
    }
    let by = |args: &[&str]| home.run(args).ends(0).out;
    let newest = without_key(&by(&["restore", "s", "-"]));
    assert_eq!(newest, server.dumped("handled"));
    assert_eq!(without_key(&by(&["cat", "s"])), newest);
    assert_eq!(without_key(&by(&["cat", "s", "handled.sql"])), newest);
    assert_eq!(without_key(&by(&["export", "s", "-"])), newest);
    let file = home.path("exported");
    by(&["export", "--at", "v2", "s", file.to_str().unwrap()]);
    let second = fs::read_to_string(&file).unwrap();
    assert_eq!(by(&["restore", "--at", "v2", "s", "-"]), second);
    assert!(by(&["ls", "s"]).contains("handled.sql"));
    assert_eq!(by(&["history", "s"]).lines().count(), 5);
    assert!(by(&["diff", "s"]).contains("content"));
    // Versions go and come back, in the middle and at the end.
    by(&["pin", "s", "v2", "--note", "kept"]);
    by(&["delete", "s", "v3", "v5"]);
    assert_eq!(versions(&home, "s"), 3);
    home.run(&["verify", "--deep", "s"]).ends(0);
    assert_eq!(by(&["restore", "--at", "v2", "s", "-"]), second);
    by(&["undelete", "s", "v3", "v5"]);
    home.run(&["verify", "--deep", "s"]).ends(0);
    assert_eq!(without_key(&by(&["restore", "s", "-"])), newest);
    by(&["prune", "--keep-last", "1", "--now", "s"]);
    assert_eq!(by(&["restore", "--at", "v2", "s", "-"]), second);
    // The rules of the configuration are applied after each backup.
    configure(&home, "handled", "RETENTION = { keep_last = 2 }\n");
    home.run(&["unpin", "s", "v2"]).ends(0);
    server.sql("handled", "DELETE FROM item WHERE id < 500");
    server.backup(&home, &["handled", "s"]).ends(0);
    assert_eq!(versions(&home, "s"), 2);
}

#[test]
fn globals_are_backed_up_with_g() {
    let (server, home) = (server(), Home::new());
    server.sql(
        "postgres",
        "DROP ROLE IF EXISTS keeper; CREATE ROLE keeper LOGIN",
    );
    server.backup(&home, &["-g", "db/globals"]).ends(0);
    let said = server.backup(&home, &["--globals", "db/globals"]).ends(0);
    assert!(said.out.contains("no change"), "{}", said.out);
    let restored = home.run(&["restore", "db/globals", "-"]).ends(0).out;
    assert!(restored.contains("CREATE ROLE keeper"));
    for (args, complaint) in [
        (
            &["-g", "shop", "s"][..],
            "-g (--globals) cannot be used with a database name",
        ),
        (
            &["s"],
            "either -g (--globals) or a database name must be specified",
        ),
    ] {
        server.backup(&home, args).ends(2).complains(complaint);
    }
}

#[test]
fn g7_databases_of_any_name_are_backed_up() {
    let (server, home) = (server(), Home::new());
    let names = [
        "a b",
        "it's",
        "-x",
        "--help",
        "k=v",
        "dbname=postgres host=/nowhere",
        "ünïcode ☃",
        "new\nline",
        "\"q\"",
        "..",
        "a/b",
        "global",
        "%67lobal",
        "back\\slash",
        "$(id)",
        "postgresql://x",
        ".",
    ];
    for (number, name) in names.iter().enumerate() {
        server.create(name);
        server.sql(name, &format!("CREATE TABLE t AS SELECT {number} AS n"));
        let dst = format!("db/{number}");
        server.backup(&home, &["--", name, &dst]).ends(0);
        server.sql(name, "INSERT INTO t VALUES (-1)");
        server.backup(&home, &["--", name, &dst]).ends(0);
        let restored = home.run(&["restore", &dst, "-"]).ends(0).out;
        assert_eq!(without_key(&restored), server.dumped(name), "{name}");
        let to = home.path(&format!("r{number}"));
        home.run(&["restore", "--at", "v1", &dst, to.to_str().unwrap()])
            .ends(0);
        assert!(!fs::read_to_string(to).unwrap().contains("-1\n"), "{name}");
    }
    assert!(
        server
            .backup(&home, &["no such", "s"])
            .ends(1)
            .err
            .contains("no such")
    );
    assert!(!home.store("s").exists());
    println!("G7: {} names", names.len());
}

/// A program that gives the first bytes of a dump, and then does something else.
fn fake_dump(home: &Home) -> String {
    script(
        home,
        "pg_dump",
        "case \"$1\" in --version) echo 'pg_dump (PostgreSQL) 15.18'; exit;; esac\nread k how < \"${0%/*}/how\"\nhead -c \"$k\" \"${0%/*}/dump.sql\"\ncase $how in fail) echo 'server closed the connection' >&2; exit 1;; kill) kill -9 $$;; child) sleep 98765 & exit 3;; esac",
    );
    let dump = "--\n-- PostgreSQL database dump\n--\n\nSELECT 1;\n\n--\n-- PostgreSQL database dump complete\n--\n\n";
    fs::write(home.path("bin/dump.sql"), dump).unwrap();
    configure(home, "shop", &bin(home));
    dump.to_owned()
}

#[test]
fn b1_no_version_is_made_of_a_dump_that_failed() {
    let home = Home::new();
    let dump = fake_dump(&home);
    let how = |text: String| fs::write(home.path("bin/how"), text).unwrap();
    how(format!("{} well", dump.len()));
    home.run(&["db", "shop", "s"]).ends(0);
    let before = tool(
        "find",
        &[
            home.store("s").to_str().unwrap(),
            "-type",
            "f",
            "-not",
            "-name",
            "log.txt",
        ],
    );
    let complete = dump.find("complete\n").unwrap() + "complete\n".len();
    let mut failed = 0;
    for length in 0..=dump.len() {
        let ways: &[&str] = match length {
            // Where the trailer is there only the exit status says that it failed.
            _ if length >= complete => &["fail", "kill"],
            _ if length % 16 == 0 => &["fail", "kill", "cut"],
            _ => &["fail", "cut"],
        };
        for way in ways {
            how(format!("{length} {way}"));
            let said = home.run(&["db", "shop", "s"]).ends(1);
            let complaint = match *way {
                "fail" => "pg_dump exited with code: 1\n  server closed the connection",
                "kill" => "pg_dump was ended by signal 9",
                _ => "the output of pg_dump is not complete",
            };
            said.complains(complaint);
            failed += 1;
        }
    }
    // Another text, then too short.
    fs::write(home.path("bin/dump.sql"), dump.replace('1', "2")).unwrap();
    how("20 child".into());
    home.run(&["db", "shop", "s"])
        .ends(1)
        .complains("exited with code: 3");
    assert_eq!(running("98765"), 0);
    configure(
        &home,
        "shop",
        &format!("{}MIN_SIZE = \"1kB\"\n", bin(&home)),
    );
    how(format!("{} well", dump.len()));
    home.run(&["db", "shop", "s"]).ends(1).complains("MIN_SIZE");
    let after = tool(
        "find",
        &[
            home.store("s").to_str().unwrap(),
            "-type",
            "f",
            "-not",
            "-name",
            "log.txt",
        ],
    );
    assert_eq!(before, after);
    assert_eq!(versions(&home, "s"), 1);
    assert_no_leftovers(&home, "s");
    let log = fs::read_to_string(home.store("s").join("log.txt")).unwrap();
    let line = "failed: pg_dump exited with code: 1; server closed the connection\n";
    assert!(log.contains(line), "{log}");
    println!("B1: {failed} of {failed} failed dumps made no version");
}

#[test]
fn b1_nothing_is_left_of_a_large_dump_that_failed() {
    let home = Home::new();
    let noise = home.path("noise");
    self::noise(&noise, 24);
    let failing = format!("cat {}; exit 1", noise.display());
    let fail = || {
        home.run(&["cmd", "x", "s", "--", "sh", "-c", &failing])
            .ends(1)
    };
    fail();
    // A store that never had a version is anybody's.
    home.run(&["cmd", "y", "s", "--", "echo", "1"]).ends(0);
    let before = bytes_below(&home.store("s").join("objects"));
    home.run(&["cmd", "y", "s", "--", "sh", "-c", &failing])
        .ends(1);
    assert_eq!(bytes_below(&home.store("s").join("objects")), before);
    assert_no_leftovers(&home, "s");
}

#[test]
fn b1_an_empty_output_counts_only_where_it_is_allowed() {
    let home = Home::new();
    fs::create_dir_all(home.path("conf/cmd")).unwrap();
    fs::set_permissions(home.path("conf/cmd"), fs::Permissions::from_mode(0o700)).unwrap();
    fs::write(home.path("conf/cmd/x.toml"), "MIN_SIZE = \"0B\"\n").unwrap();
    let run = |program: &[&str]| {
        let args = [&["cmd", "x", "s", "--"], program].concat();
        home.run(&args).ends(0).out
    };
    run(&["true"]);
    assert!(run(&["true"]).contains("no change"));
    run(&["echo", "1"]);
    home.run(&["cmd", "x", "s", "--", "true"]).ends(3);
    run(&["echo", "2"]);
    home.run(&["verify", "--deep", "s"]).ends(0);
    for (version, expected) in [("v1", ""), ("v2", "1\n"), ("v3", ""), ("v4", "2\n")] {
        assert_eq!(
            home.run(&["restore", "--at", version, "s", "-"])
                .ends(0)
                .out,
            expected
        );
    }
}

#[test]
fn k7_a_program_that_is_missing_or_too_old_is_said_before_anything_starts() {
    let (server, home) = (server(), Home::new());
    server.create("old");
    script(
        &home,
        "pg_dump",
        "echo 'pg_dump (PostgreSQL) 9.6.24'; [ \"$1\" = --version ] || touch \"${0%/*}/started\"",
    );
    fs::copy("/usr/bin/psql", home.path("bin/psql")).unwrap();
    std::fs::remove_file(home.path("bin/psql")).unwrap();
    std::os::unix::fs::symlink("/usr/bin/psql", home.path("bin/psql")).unwrap();
    configure(&home, "old", &bin(&home));
    let said = server.backup(&home, &["old", "s"]).ends(1);
    said.complains("pg_dump is of version 9.6.24, the server of version 1");
    fs::remove_file(home.path("bin/pg_dump")).unwrap();
    server
        .backup(&home, &["old", "s"])
        .ends(1)
        .complains("bin/pg_dump: No such file");
    assert!(!home.store("s").exists() && !home.path("bin/started").exists());
    home.run(&["cmd", "x", "s", "--", "no-such-program"])
        .ends(1)
        .complains("There is no program no-such-program");
    assert!(!home.store("s").exists());
    home.run(&["cmd", "here", "w", "--", "echo", "1"]).ends(0);
    home.run(&["cmd", "here", "w", "--", "no-such-program"])
        .ends(1);
    let log = fs::read_to_string(home.store("w").join("log.txt")).unwrap();
    assert!(log.contains("failed: There is no program"), "{log}");
    // A server that is not there is noted in the log of a store that is.
    home.run(&["cmd", "old", "t", "--", "echo", "1"]).ends(0);
    server.backup(&home, &["old", "t"]).ends(1);
    let log = fs::read_to_string(home.store("t").join("log.txt")).unwrap();
    assert!(!log.contains("failed"), "another source's store: {log}");
    configure(&home, "old", "");
    server.backup(&home, &["old", "u"]).ends(0);
    configure(&home, "old", "CONNINFO = \"host=/nowhere\"\n");
    server.backup(&home, &["old", "u"]).ends(1);
    let log = fs::read_to_string(home.store("u").join("log.txt")).unwrap();
    assert!(log.contains("failed: Cannot ask the server"), "{log}");
    configure(&home, "old", "CONNINFO = \"host=/nowhere\"\n");
    server
        .backup(&home, &["old", "s"])
        .ends(1)
        .complains("/nowhere");
    assert!(!home.store("s").exists());
}

#[test]
fn g8_passwords_are_not_on_command_lines_nor_in_logs() {
    let home = Home::new();
    script(
        &home,
        "pg_dump",
        "case \"$1\" in --version) echo 'pg_dump (PostgreSQL) 15.18'; exit;; esac\necho \"$@\" > \"${0%/*}/args\"\n[ \"$PGPASSWORD\" = sekret ] || exit 7\necho 'pg_dump: warning: odd' >&2; printf 'x\\n-- PostgreSQL database dump complete\\n'",
    );
    configure(
        &home,
        "shop",
        &format!("{}ARGS = [\"--no-owner\"]\n", bin(&home)),
    );
    let mut command = home.command(&["db", "shop", "s"]);
    let said = Said::of(command.env("PGPASSWORD", "sekret").output().unwrap()).ends(0);
    assert!(said.out.contains("pg_dump: warning: odd"), "{}", said.out);
    let args = fs::read_to_string(home.path("bin/args")).unwrap();
    assert!(
        args.starts_with("--no-password --restrict-key=")
            && args.ends_with(" --dbname=dbname='shop' --no-owner\n"),
        "{args}"
    );
    let log = fs::read_to_string(home.store("s").join("log.txt")).unwrap();
    assert!(
        log.contains("warning: odd") && !(log + &args + &said.out + &said.err).contains("sekret")
    );
    configure(&home, "shop", "CONNINFO = \"host=x password=sekret\"\n");
    let said = home
        .run(&["db", "shop", "s"])
        .ends(2)
        .complains("~/.pgpass");
    assert!(!said.err.contains("sekret"), "{}", said.err);
    configure(&home, "shop", "ARGS = [\"-Fc\"]\n");
    home.run(&["db", "shop", "s"])
        .ends(2)
        .complains("shop.toml")
        .complains("-Fc");
}

#[test]
fn g7_the_program_can_run_as_another_user() {
    if !is_root() {
        return skip("to run something as another user needs root");
    }
    let (server, home) = (server(), Home::new());
    server.create("peer");
    server.sql("peer", "CREATE TABLE t (n int)");
    server.sql(
        "postgres",
        "DROP ROLE IF EXISTS nobody; CREATE ROLE nobody LOGIN SUPERUSER",
    );
    configure(&home, "peer", "CONNINFO = \"user=nobody\"\n");
    // The server lets nobody but nobody be nobody.
    server
        .backup(&home, &["peer", "s"])
        .ends(1)
        .complains("Peer authentication failed");
    configure(
        &home,
        "peer",
        "CONNINFO = \"user=nobody\"\nRUN_AS = \"nobody\"\n",
    );
    server.backup(&home, &["peer", "s"]).ends(0);
    assert!(
        home.run(&["restore", "s", "-"])
            .ends(0)
            .out
            .contains("CREATE TABLE public.t")
    );
    configure(&home, "peer", "RUN_AS = \"no-such-user\"\n");
    server
        .backup(&home, &["peer", "s"])
        .ends(1)
        .complains("there is no user 'no-such-user'");
}

#[test]
fn e7_no_child_outlives_a_killed_run_nor_holds_its_lock() {
    let home = Home::new();
    home.run(&["cmd", "x", "s", "--", "echo", "first"]).ends(0);
    for signal in ["KILL", "TERM", "INT"] {
        let word = format!("{}", 90000 + signal.len());
        let mut command = home.command(&[
            "cmd",
            "x",
            "s",
            "--",
            "sh",
            "-c",
            &format!("echo begun; exec sleep {word}"),
        ]);
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        wait_until("it runs", || running(&word) == 1);
        home.run(&["cmd", "x", "s", "--", "echo", "x"]).ends(4);
        tool("kill", &["-s", signal, &child.id().to_string()]);
        child.wait().unwrap();
        wait_until("the child is gone", || running(&word) == 0);
        home.run(&["cmd", "x", "s", "--", "echo", "first"]).ends(0);
        assert_no_leftovers(&home, "s");
    }
    assert_eq!(versions(&home, "s"), 1);
}

#[test]
fn f6_a_command_has_no_terminal_and_its_errors_are_not_waited_for() {
    let home = Home::new();
    // Asks where nobody answers: it must not be asked at all.
    home.run(&[
        "cmd",
        "x",
        "s",
        "--",
        "sh",
        "-c",
        "read answer < /dev/tty && echo $answer",
    ])
    .ends(1);
    home.run(&["cmd", "x", "s", "--", "cat"])
        .ends(1)
        .complains("gave nothing");
    // Much more than a pipe holds.
    let noisy = "yes 'something is odd' | head -n 200000 >&2; echo content";
    let said = home
        .run(&["cmd", "x", "s", "--", "sh", "-c", noisy])
        .ends(0);
    assert!(said.out.len() < 4000, "{}", said.out.len());
    assert_eq!(home.run(&["cat", "s"]).ends(0).out, "content\n");
    // What it left running holds its standard error.
    let begun = Instant::now();
    home.run(&[
        "cmd",
        "x",
        "s",
        "--",
        "sh",
        "-c",
        "sleep 30 > /dev/null & echo more",
    ])
    .ends(0);
    assert!(begun.elapsed() < Duration::from_secs(20));
}

#[test]
fn cmd_takes_sqlite_redis_and_the_standard_input() {
    let home = Home::new();
    let database = home.path("notes.db");
    let sqlite = |sql: &str| tool("sqlite3", &[database.to_str().unwrap(), sql]);
    sqlite(
        "CREATE TABLE note (n int, text); INSERT INTO note SELECT value, 'note ' || value FROM generate_series(1, 5000)",
    );
    let notes = [
        "cmd",
        "notes",
        "notes",
        "--",
        "sqlite3",
        database.to_str().unwrap(),
        ".dump",
    ];
    home.run(&notes).ends(0);
    assert!(home.run(&notes).ends(0).out.contains("no change"));
    sqlite("UPDATE note SET text = 'changed' WHERE n = 2500");
    home.run(&notes).ends(0);
    let again = home.path("again.db");
    let restore = format!(
        "{} restore notes - | sqlite3 {}",
        crate::tools::PROGRAM,
        again.display()
    );
    let mut shell = Command::new("sh");
    let config = home.path("conf");
    shell
        .args(["-c", &restore])
        .env("BTW_BACKUP_CONFIG_DIR", config);
    Said::of(shell.output().unwrap()).ends(0);
    let all = "SELECT sum(n), group_concat(text) FROM note";
    assert_eq!(
        tool("sqlite3", &[again.to_str().unwrap(), all]),
        sqlite(all)
    );

    let redis = Redis::start(&home);
    redis.cli(&["SET", "key", "a value\u{1}"]);
    home.run(&[
        "cmd",
        "redis",
        "redis",
        "--",
        "redis-cli",
        "-s",
        redis.socket.to_str().unwrap(),
        "--rdb",
        "-",
    ])
    .ends(0);
    let rdb = home.restored("latest", "redis");
    assert!(tool("redis-check-rdb", &[rdb.to_str().unwrap()]).contains("RDB looks OK"));
    drop(redis);
    fs::rename(rdb, home.path("dump.rdb")).unwrap();
    let redis = Redis::start(&home);
    assert_eq!(redis.cli(&["GET", "key"]), "a value\u{1}\n");

    let mut command = home.command(&["cmd", "stream", "stream", "-"]);
    command.stdin(fs::File::open(home.path("notes.db")).unwrap());
    Said::of(command.output().unwrap()).ends(0);
    let restored = home.restored("latest", "stream");
    tool(
        "cmp",
        &[restored.to_str().unwrap(), database.to_str().unwrap()],
    );
    home.run(&["cmd", "stream", "stream", "-"])
        .ends(1)
        .complains("the standard input gave nothing");
    assert_eq!(versions(&home, "stream"), 1);
}

/// A Redis server without a port; its data are in the home's directory.
struct Redis {
    child: std::process::Child,
    socket: PathBuf,
}

impl Redis {
    fn start(home: &Home) -> Self {
        let socket = home.path("redis.sock");
        let child = Command::new("redis-server")
            .args([
                "--port",
                "0",
                "--save",
                "",
                "--unixsocket",
                socket.to_str().unwrap(),
            ])
            .current_dir(home.dir.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let redis = Self { child, socket };
        wait_until("redis answers", || {
            let ping = Command::new("redis-cli")
                .args(["-s", redis.socket.to_str().unwrap(), "PING"])
                .output();
            ping.unwrap().stdout == b"PONG\n"
        });
        redis
    }

    fn cli(&self, args: &[&str]) -> String {
        tool(
            "redis-cli",
            &[&["-s", self.socket.to_str().unwrap()], args].concat(),
        )
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Bytes that do not compress.
fn noise(path: &Path, mebibytes: usize) {
    let command = format!(
        "head -c {}M /dev/zero | openssl enc -aes-128-ctr -pass pass:x -nosalt 2> /dev/null > {}",
        mebibytes,
        path.display()
    );
    tool("sh", &["-c", &command]);
}

fn bytes_below(dir: &Path) -> u64 {
    let listed = tool(
        "find",
        &[dir.to_str().unwrap(), "-type", "f", "-printf", "%s\\n"],
    );
    listed
        .lines()
        .map(|line| line.parse::<u64>().unwrap())
        .sum()
}

#[test]
fn an_insertion_at_the_front_costs_what_was_inserted() {
    let home = Home::new();
    let (old, new) = (home.path("old"), home.path("new"));
    noise(&old, 48);
    tool(
        "sh",
        &[
            "-c",
            &format!("printf x | cat - {} > {}", old.display(), new.display()),
        ],
    );
    home.run(&["cmd", "x", "s", "--", "cat", old.to_str().unwrap()])
        .ends(0);
    let before = bytes_below(&home.store("s"));
    home.run(&["cmd", "x", "s", "--", "cat", new.to_str().unwrap()])
        .ends(0);
    let grown = bytes_below(&home.store("s")) - before;
    let delta = bytes_below(&home.store("s").join("deltas"));
    assert!(delta <= 1 << 10, "{delta}");
    assert!(grown <= 256 << 10, "{grown}");
    for (version, file) in [("v1", &old), ("v2", &new)] {
        let restored = home.restored(version, "s");
        tool("cmp", &[restored.to_str().unwrap(), file.to_str().unwrap()]);
    }
    println!("48 MiB, one byte in front: delta {delta} bytes, store grown by {grown}");
}

#[test]
fn diff_shows_the_lines_of_dumps_that_changed() {
    let home = Home::new();
    let script = |n: u32| {
        format!(
            "seq 1 {}; [ {n} = 0 ] || echo inserted {n}; seq 200000 -1 150000; [ {n} = 3 ] || seq 7 {}; seq 300 900; [ {n} != 2 ] || printf 'no newline'",
            40_000 + n,
            3000 * (n + 1)
        )
    };
    for n in 0..4 {
        home.run(&["cmd", "x", "s", "--", "sh", "-c", &script(n)])
            .ends(0);
    }
    for (from, to) in [(1, 2), (2, 3), (3, 4), (1, 4), (4, 1), (2, 2)] {
        let (from, to) = (format!("v{from}"), format!("v{to}"));
        let shown = home
            .run(&["diff", "-p", "s", "--from", &from, "--to", &to])
            .ends(0)
            .out;
        let (old, new) = (home.restored(&from, "s"), home.restored(&to, "s"));
        assert!(shown.len() < 200_000, "{from} {to}: {}", shown.len());
        if from != to {
            let patch = home.path("patch");
            fs::write(&patch, shown.split_once('\n').unwrap().1).unwrap();
            tool(
                "patch",
                &["-s", old.to_str().unwrap(), patch.to_str().unwrap()],
            );
        }
        tool("cmp", &[old.to_str().unwrap(), new.to_str().unwrap()]);
    }
}

#[test]
fn another_reader_understands_raw_streams() {
    let home = Home::new();
    for n in 1..=3 {
        let lines = format!("seq 1 {n}000; seq 5000 25000");
        home.run(&["cmd", "x", "s", "--", "sh", "-c", &lines])
            .ends(0);
    }
    let store = home.store("s");
    let store = store.to_str().unwrap();
    tool("python3", &["tests/reader.py", "check", store]);
    let first = tool("python3", &["tests/reader.py", "tar", store, "v1"]);
    assert_eq!(
        first,
        home.run(&["restore", "--at", "v1", "s", "-"]).ends(0).out
    );
}

#[test]
fn b1_a_dump_that_has_shrunk_to_less_than_half_is_a_warning() {
    let home = Home::new();
    let lines = |count: &str| home.run(&["cmd", "x", "s", "--", "seq", count]);
    lines("1000").ends(0);
    lines("900").ends(0);
    lines("300").ends(3).complains("less than half");
    assert_eq!(versions(&home, "s"), 3);
    // The next night, too, changed or not.
    lines("300").ends(3).complains("less than half");
    lines("301").ends(3).complains("less than half");
    lines("900").ends(0);
    let listed = home.run(&["list", "s"]).ends(0).out;
    assert!(!listed.contains("partial"), "{listed}");
}

#[test]
fn k3_what_cannot_be_is_refused() {
    let home = Home::new();
    home.run(&["cmd", "x", "s", "--", "echo", "1"]).ends(0);
    // A store belongs to one source, and holds one kind of thing.
    home.run(&["cmd", "y", "s", "--", "echo", "1"])
        .ends(1)
        .complains("belongs to command:x");
    fs::create_dir(home.path("src")).unwrap();
    home.fs(&home.path("src"), "s")
        .ends(1)
        .complains("belongs to command:x");
    let src = home.path("src");
    home.run(&["fs", "--adopt", src.to_str().unwrap(), "s"])
        .ends(1)
        .complains("holds a database or a command's output");
    home.run(&["cmd", "x", "s"]).ends(2);
    home.run(&["cmd", "", "s", "--", "echo"]).ends(2);
    home.run(&["restore", "s", "--partial", "-"]).ends(2);
    let here = home.path("src");
    let here = here.to_str().unwrap();
    home.run(&["restore", "--in-place", "s", here])
        .ends(1)
        .complains("holds a dump");
    home.run(&["compare", "s", here])
        .ends(1)
        .complains("holds a dump");
    home.fs(&src, "tree").ends(0);
    home.run(&["restore", "tree", "-"])
        .ends(1)
        .complains("is a tree");
    home.run(&["cat", "tree"]).ends(2).complains("name a file");
    home.run(&["cmd", "y", "s", "--adopt", "--", "echo", "1"])
        .ends(0);
}

#[test]
fn f1_damage_in_a_dump_is_found_and_the_next_one_is_stored_anew() {
    let home = Home::new();
    let dump = |n: &str| {
        home.run(&[
            "cmd",
            "x",
            "s",
            "--",
            "sh",
            "-c",
            &format!("seq 1 60000; echo {n}"),
        ])
    };
    dump("one").ends(0);
    dump("two").ends(0);
    let object = fs::read_dir(home.store("s").join("objects"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .max_by_key(|path| path.metadata().unwrap().len())
        .unwrap();
    let mut bytes = fs::read(&object).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::set_permissions(&object, fs::Permissions::from_mode(0o600)).unwrap();
    fs::write(&object, bytes).unwrap();
    home.run(&["verify", "--deep", "s"]).ends(5);
    home.run(&["restore", "s", home.path("out").to_str().unwrap()])
        .ends(5);
    assert!(!home.path("out").exists());
    dump("three").ends(5);
    let restored = home.run(&["restore", "s", "-"]).ends(0).out;
    assert!(restored.ends_with("60000\nthree\n"));
}
