//! A second opinion on what S3 is: moto's server. It is told apart from the first one by name only.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use btw_backup::remote::{Access, Limits, Place, Settings, SshAccess, open};

use crate::conformance::conforms;
use crate::server::{KEY, SECRET};
use crate::tools::{Home, Said, assert_same_tree, skip};
use crate::trees;

struct Moto {
    port: u16,
    child: Child,
}

/// Where `tests/run` puts it, or anywhere on the path.
fn program() -> Option<PathBuf> {
    let installed = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/tools/bin/moto_server");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).map(|dir| dir.join("moto_server"));
    std::iter::once(installed)
        .chain(dirs)
        .find(|file| file.is_file())
}

impl Moto {
    fn start() -> Option<Self> {
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let child = Command::new(program()?)
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let moto = Self { port, child };
        for _ in 0..600 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
        socket
            .write_all(b"PUT /backups HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        Some(moto)
    }

    fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn another_server_conforms_and_takes_a_store() {
    let Some(moto) = Moto::start() else {
        return skip("moto_server is not installed; tests/run installs it");
    };
    let settings = Settings {
        name: "moto".into(),
        place: Place::parse("s3://backups/suite").unwrap(),
        s3: Access {
            endpoint: Some(moto.endpoint()),
            key: Some((KEY.into(), SECRET.into(), None)),
            ..Access::default()
        },
        ssh: SshAccess::default(),
        limits: Limits::default(),
    };
    conforms(&*open(&settings).unwrap(), false);
    let home = Home::new();
    let config = format!(
        "ROOT_PATH = '{}'\n[remote.moto]\nurl = \"s3://backups/here\"\nendpoint = \"{}\"\nencryption = \"AES256\"\nstorage_class = \"STANDARD_IA\"\n",
        home.path("root").display(),
        moto.endpoint()
    );
    std::fs::write(home.path("conf/config.toml"), config).unwrap();
    let run = |args: &[&str]| {
        let mut command = home.command(args);
        command
            .env("AWS_ACCESS_KEY_ID", KEY)
            .env("AWS_SECRET_ACCESS_KEY", SECRET);
        Said::of(command.output().unwrap())
    };
    let src = home.path("src");
    for n in 1..=2 {
        trees::release(&src, n);
        run(&["fs", "--init", src.to_str().unwrap(), "home"]).ends(0);
    }
    let target = home.path("back");
    run(&[
        "restore",
        "--remote",
        "moto",
        "home",
        target.to_str().unwrap(),
    ])
    .ends(0);
    assert_same_tree(&src, &target);
    run(&["verify", "--deep", "--remote", "moto", "home"]).ends(0);
}
