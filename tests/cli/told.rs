//! Who is told how a run went: by real mail servers, a real web server, real programs.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::run::{configure, wait_for};
use crate::tools::{Home, skip, tool};

/// What is ended with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A web server that writes each request's method, path and body to a file, and answers what the path asks for.
const WEB: &str = r"
import http.server, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = self.rfile.read(int(self.headers.get('content-length') or 0)).decode()
        with open(sys.argv[1], 'a') as log:
            log.write(f'{self.command} {self.path} {body}\n')
        code = int(self.path.rsplit('/', 1)[-1]) if self.path[-3:].isdigit() else 200
        self.send_response(code)
        if code == 302: self.send_header('Location', '/followed')
        self.send_header('content-length', '0')
        self.end_headers()
    do_POST = do_GET
    def log_message(self, *args): pass
server = http.server.HTTPServer(('127.0.0.1', 0), Handler)
print(server.server_port, flush=True)
server.serve_forever()
";

fn web(log: &Path) -> (Server, u16) {
    let mut child = Command::new("python3")
        .args(["-c", WEB])
        .arg(log)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    (Server(child), line.trim().parse().unwrap())
}

/// A mail server that keeps what it is given in a directory.
const MAIL: &str = r"
import sys, ssl, time
from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Mailbox
from aiosmtpd.smtp import AuthResult
def check(server, session, envelope, mechanism, data):
    return AuthResult(success=(data.login, data.password) == (b'ada', b'open sesame'))
context = None
if len(sys.argv) > 3:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(sys.argv[3], sys.argv[4])
controller = Controller(Mailbox(sys.argv[1]), hostname='127.0.0.1', port=int(sys.argv[2]), tls_context=context, require_starttls=context is not None, authenticator=check)
controller.start()
print(controller.server.sockets[0].getsockname()[1], flush=True)
while True: time.sleep(100)
";

fn mail_server(dir: &Path, tls: Option<(&Path, &Path)>) -> Option<(Server, u16)> {
    let mut command = Command::new("/usr/bin/python3");
    let port = free_port();
    command
        .args(["-c", MAIL])
        .arg(dir)
        .arg(port.to_string())
        .stdout(Stdio::piped());
    command.args(tls.iter().flat_map(|(cert, key)| [*cert, *key]));
    let mut child = command.spawn().ok()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take()?)
        .read_line(&mut line)
        .ok()?;
    Some((Server(child), line.trim().parse().ok()?))
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port()
}

fn mails(dir: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(dir.join("new")) else {
        return Vec::new();
    };
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let mails = paths.iter().map(|path| fs::read_to_string(path).unwrap());
    let mails = mails.collect();
    for path in &paths {
        fs::remove_file(path).unwrap();
    }
    mails
}

/// A job that fails if a file is missing, and warns never.
fn job(home: &Home) {
    configure(
        home,
        &format!(
            "STEPS = ['fs', 'cmd']\n[job.j]\ncommand = ['cat', '{}']\n",
            home.path("x").display()
        ),
    );
}

#[test]
fn web_hooks_and_dead_mans_switches() {
    let home = Home::new();
    job(&home);
    let log = home.path("requests");
    let (_server, port) = web(&log);
    configure(
        &home,
        &format!(
            "[notify.hook]\nwebhook = 'http://127.0.0.1:{port}/hook/t0psecret'\n[notify.switch]\nping = 'http://127.0.0.1:{port}/ping/t0psecret'\n[notify.all]\ncommand = ['sh', '-c', 'echo $BTW_EVENT $BTW_SUBJECT >> {}']\non = ['success', 'failure', 'recovery', 'warning']\n",
            home.path("events").display()
        ),
    );
    let requests = || {
        let text = fs::read_to_string(&log).unwrap_or_default();
        let _ = fs::remove_file(&log);
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    // It fails twice, is well again, and then is well.
    home.run(&["run"]).ends(1);
    let first = requests();
    assert_eq!(first.len(), 1);
    let body = first[0].strip_prefix("POST /hook/t0psecret ").unwrap();
    let body: Value = serde_json::from_str(body).unwrap();
    assert_eq!(
        (&body["event"], &body["tasks"][0]["name"]),
        (&"failure".into(), &"cmd j".into())
    );
    let text = body["text"].as_str().unwrap();
    assert!(
        text.contains("To try again: btw-backup run cmd j"),
        "{text}"
    );
    home.run(&["run"]).ends(1);
    assert!(requests()[0].contains("  since "));
    fs::write(home.path("x"), "x").unwrap();
    home.run(&["run"]).ends(0);
    let recovered = requests();
    assert_eq!(recovered.len(), 2, "{recovered:?}");
    assert!(
        recovered[0].contains("\"event\":\"recovery\"")
            && recovered[1].starts_with("GET /ping/t0psecret")
    );
    home.run(&["run"]).ends(0);
    assert_eq!(requests(), ["GET /ping/t0psecret "]);
    // A part of the work is not what the switch waits for.
    home.run(&["run", "j"]).ends(0);
    assert!(requests().is_empty());
    let events = fs::read_to_string(home.path("events")).unwrap();
    let host = rustix::system::uname()
        .nodename()
        .to_str()
        .unwrap()
        .to_owned();
    let expected = [
        "failure {} FAILED: cmd j",
        "failure {} FAILED: cmd j",
        "recovery {} is well again: cmd j",
        "success {} is done: 1 tasks",
        "success {} is done: 1 tasks",
    ];
    let expected = expected.map(|line| line.replace("{}", &format!("btw-backup on {host}")));
    assert_eq!(events.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn who_cannot_be_told_is_seen_and_no_secret_is_told() {
    let home = Home::new();
    job(&home);
    let log = home.path("requests");
    let (_server, port) = web(&log);
    configure(
        &home,
        &format!(
            "[notify.gone]\nwebhook = 'http://127.0.0.1:{}/t0psecret'\n[notify.moved]\nwebhook = 'http://127.0.0.1:{port}/t0psecret/302'\n[notify.refused]\nwebhook = 'http://127.0.0.1:{port}/t0psecret/404'\n[notify.bad]\ncommand = ['sh', '-c', 'echo why >&2; exit 7']\n[notify.plain]\nwebhook = 'http://example.org/t0psecret'\n[notify.word]\nmail = 'root'\non = ['sometimes']\n",
            free_port()
        ),
    );
    let mut command = home.command(&["run"]);
    let secret = "s3cr3t-of-the-database";
    fs::write(home.path("conf/x"), "").unwrap();
    let text = fs::read_to_string(home.path("conf/config.toml")).unwrap();
    let text = text.replace("['cat'", "['sh', '-c', 'echo connecting to postgresql://ada:hunter22@db with $PGPASSWORD $MYSQL_PWD >&2; exit 1', 'cat'");
    fs::write(
        home.path("conf/config.toml"),
        format!(
            "{text}[notify.file]\ncommand = ['tee', '{}']\n",
            home.path("told").display()
        ),
    )
    .unwrap();
    command
        .env("PGPASSWORD", secret)
        .env("MYSQL_PWD", "with\"quote");
    let said = crate::tools::Said::of(command.output().unwrap()).ends(1);
    for (name, why) in [
        ("gone", "127.0.0.1: "),
        ("moved", "127.0.0.1 answers 302"),
        ("refused", "127.0.0.1 answers 404"),
        ("bad", "sh exited with code: 7: why"),
        ("plain", "webhook must begin with https://"),
        ("word", "'sometimes' is not known"),
    ] {
        let line = said
            .err
            .lines()
            .find(|line| line.contains(&format!("[notify.{name}]: nobody was told")));
        assert!(
            line.is_some_and(|line| line.contains(why)),
            "{name}: {}",
            said.err
        );
    }
    let told = fs::read_to_string(home.path("told")).unwrap();
    assert!(
        told.contains("connecting to postgresql://ada:***@db with *** ***"),
        "{told}"
    );
    let requests = fs::read_to_string(&log).unwrap();
    assert!(!requests.contains("/followed"));
    // Nor is one in what is kept.
    let status = home.run(&["status"]);
    let record = fs::read_to_string(home.path("conf/run/record.json")).unwrap();
    for (place, text) in [
        ("told", &told),
        ("requests", &requests),
        ("status", &status.out),
        ("record", &record),
    ] {
        assert!(
            !text.contains(secret) && !text.contains("hunter22") && !text.contains("quote"),
            "{place}: {text}"
        );
    }
    for text in [&said.out, &said.err, &status.out, &record] {
        assert!(!text.contains("t0psecret"), "{text}");
    }
    let status = status.ends(1).out;
    for name in ["gone", "moved", "refused", "bad"] {
        assert!(
            status.contains(&format!("nobody was told by {name} ")),
            "{status}"
        );
    }
    // A test that goes well ends the warning; so does it that nobody is to be told that way any more.
    let text = fs::read_to_string(home.path("conf/config.toml")).unwrap();
    fs::write(
        home.path("conf/config.toml"),
        text.replace("exit 7", "exit 0"),
    )
    .unwrap();
    home.run(&["notify", "bad"]).ends(0);
    assert!(
        !home
            .run(&["status"])
            .out
            .contains("nobody was told by bad ")
    );
    fs::write(home.path("conf/config.toml"), text).unwrap();
    // Those who can be told can be asked for.
    home.run(&["notify", "file"]).ends(0);
    home.run(&["notify", "bad"])
        .ends(1)
        .complains("nobody was told");
    home.run(&["notify", "nobody"])
        .ends(2)
        .complains("there are: bad, file");
}

#[test]
fn a_configuration_that_cannot_be_used_is_told() {
    let home = Home::new();
    configure(
        &home,
        &format!(
            "STEPS = ['fs', 'dance']\n[notify.file]\ncommand = ['tee', '{}']\n",
            home.path("told").display()
        ),
    );
    home.run(&["run"])
        .ends(2)
        .complains("line 2, column 1: STEPS: there is no step 'dance'");
    let told = fs::read_to_string(home.path("told")).unwrap();
    assert!(
        told.contains("FAILED: run") && told.contains("dance"),
        "{told}"
    );
    let text = fs::read_to_string(home.path("conf/config.toml")).unwrap();
    // Repaired, but nothing is configured: that is no success either.
    fs::write(home.path("conf/config.toml"), text.replace(", 'dance'", "")).unwrap();
    home.run(&["run"])
        .ends(1)
        .complains("nothing is configured to be backed up");
    let a = crate::run::source(&home, "a");
    configure(&home, &format!("[job.a]\nsource = '{a}'\n"));
    home.run(&["run"]).ends(0);
    let told = fs::read_to_string(home.path("told")).unwrap();
    assert!(told.contains("is well again: run"), "{told}");
    // Whatever is wrong with the record, somebody is told.
    fs::write(home.path("conf/run/record.json"), b"\xff\xfe").unwrap();
    fs::remove_dir_all(home.path("a")).unwrap();
    fs::create_dir(home.path("conf/run/record.tmp")).unwrap();
    let said = home.run(&["run"]).ends(1);
    said.complains("How the run went is not recorded");
    let told = fs::read_to_string(home.path("told")).unwrap();
    assert!(told.contains("FAILED: fs a"), "{told}");
}

#[test]
fn mail_by_sendmail_and_by_a_server() {
    let home = Home::new();
    let boxes = home.path("mail");
    let Some((_server, port)) = mail_server(&boxes, None) else {
        return skip("mail: python3-aiosmtpd is needed");
    };
    job(&home);
    // A real sendmail that hands on to that server.
    let rc = home.path("msmtprc");
    fs::write(&rc, format!("account default\nhost 127.0.0.1\nport {port}\nfrom backup@example.org\nauth off\ntls off\n")).unwrap();
    fs::set_permissions(&rc, fs::Permissions::from_mode(0o600)).unwrap();
    let sendmail = home.path("sendmail");
    fs::write(
        &sendmail,
        format!("#!/bin/sh\nexec msmtp -C '{}' \"$@\"\n", rc.display()),
    )
    .unwrap();
    fs::set_permissions(&sendmail, fs::Permissions::from_mode(0o700)).unwrap();
    configure(
        &home,
        &format!(
            "[notify.a]\nmail = ['root', 'ada@example.org']\nsendmail = '{}'\n[notify.b]\nmail = 'bob@example.org'\nfrom = 'Bäckup <backup@example.org>'\nsmtp = '127.0.0.1:{port}'\ntls = 'none'\n",
            sendmail.display()
        ),
    );
    home.run(&["run"]).ends(1);
    wait_for(|| fs::read_dir(boxes.join("new")).is_ok_and(|mails| mails.count() == 2));
    let mails = mails(&boxes);
    for mail in &mails {
        let host = rustix::system::uname()
            .nodename()
            .to_str()
            .unwrap()
            .to_owned();
        assert!(
            mail.contains(&format!("Subject: btw-backup on {host} FAILED: cmd j")),
            "{mail}"
        );
        assert!(
            mail.contains("Date: ") && mail.contains("Message-ID: "),
            "{mail}"
        );
        assert!(mail.contains("cat exited with code: 1"), "{mail}");
    }
    let to = |name: &str| {
        mails.iter().any(|mail| {
            mail.lines()
                .any(|line| line.starts_with("X-RcptTo:") && line.contains(name))
        })
    };
    assert!(
        to("root") && to("ada@example.org") && to("bob@example.org"),
        "{mails:?}"
    );
    // TLS is what is usual; a server without it gets nothing.
    let text = fs::read_to_string(home.path("conf/config.toml")).unwrap();
    fs::write(
        home.path("conf/config.toml"),
        text.replace("tls = 'none'\n", ""),
    )
    .unwrap();
    home.run(&["notify", "b"]).ends(1).complains("127.0.0.1");
}

#[test]
fn mail_by_a_server_with_tls_and_a_password() {
    let home = Home::new();
    let (cert, key) = (home.path("cert.pem"), home.path("key.pem"));
    let file = |path: &Path| path.to_str().unwrap().to_owned();
    tool(
        "openssl",
        &[
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost",
            "-addext",
            "basicConstraints=critical,CA:FALSE",
            "-keyout",
            &file(&key),
            "-out",
            &file(&cert),
        ],
    );
    let boxes = home.path("mail");
    let Some((_server, port)) = mail_server(&boxes, Some((&cert, &key))) else {
        return skip("mail: python3-aiosmtpd is needed");
    };
    let password = home.path("password");
    fs::write(&password, "open sesame\n").unwrap();
    fs::set_permissions(&password, fs::Permissions::from_mode(0o644)).unwrap();
    configure(
        &home,
        &format!(
            "[notify.b]\nmail = 'bob@example.org'\nsmtp = 'localhost:{port}'\nsmtp_user = 'ada'\npassword_file = '{}'\n",
            password.display()
        ),
    );
    let notify = |trusted: bool| {
        let mut command = home.command(&["notify"]);
        if trusted {
            command.env("SSL_CERT_FILE", &cert);
        }
        crate::tools::Said::of(command.output().unwrap())
    };
    notify(true)
        .ends(1)
        .complains("can be read by others: chmod 600");
    fs::set_permissions(&password, fs::Permissions::from_mode(0o600)).unwrap();
    // A server that nobody vouches for gets neither mail nor password.
    notify(false).ends(1).complains("localhost");
    assert!(mails(&boxes).is_empty());
    notify(true).ends(0);
    wait_for(|| fs::read_dir(boxes.join("new")).is_ok_and(|mails| mails.count() == 1));
    fs::write(&password, "wrong\n").unwrap();
    let said = notify(true).ends(1);
    assert!(!said.err.contains("wrong"), "{}", said.err);
}
