//! A real sshd on loopback with a throw-away key.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::tools::{is_root, tool};

/// A running server. It ends with this.
pub struct Sshd {
    pub dir: tempfile::TempDir,
    pub port: u16,
    user: String,
    child: Child,
}

impl Sshd {
    /// Starts one; `more` are lines of its configuration.
    pub fn start(more: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        for key in ["host", "user", "other"] {
            tool(
                "ssh-keygen",
                &["-q", "-t", "ed25519", "-N", "", "-f", &path(key)],
            );
        }
        fs::copy(path("user.pub"), path("authorized")).unwrap();
        fs::create_dir(path("there")).unwrap();
        if is_root() {
            let _ = fs::create_dir_all("/run/sshd");
        }
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\nPidFile none\nPermitRootLogin yes\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nSubsystem sftp internal-sftp\nMaxStartups 100\n{more}\n",
            path("host"),
            path("authorized")
        );
        fs::write(path("config"), config).unwrap();
        let child = Command::new("/usr/sbin/sshd")
            .args(["-D", "-e", "-f", &path("config")])
            .stdin(Stdio::null())
            .stderr(fs::File::create(path("log")).unwrap())
            .spawn()
            .unwrap_or_else(|error| panic!("sshd: {error}; tests/run installs it"));
        for _ in 0..200 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let host_key = fs::read_to_string(path("host.pub")).unwrap();
        fs::write(path("known"), format!("[127.0.0.1]:{port} {host_key}")).unwrap();
        Self {
            port,
            user: tool("id", &["-un"]).trim().to_owned(),
            child,
            dir,
        }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The URL of its directory.
    pub fn url(&self) -> String {
        let there = self.path("there");
        format!(
            "sftp://{}@127.0.0.1:{}{}",
            self.user,
            self.port,
            there.display()
        )
    }

    /// The configuration of a remote on it.
    pub fn config(&self, name: &str) -> String {
        format!(
            "[remote.{name}]\nurl = \"{}\"\nidentity = \"{}\"\nknown_hosts = \"{}\"\nattempts = 2\n",
            self.url(),
            self.path("user").display(),
            self.path("known").display()
        )
    }

    /// Another host key from now on.
    pub fn change_host_key(&self) {
        let other = fs::read_to_string(self.path("other.pub")).unwrap();
        fs::write(
            self.path("known"),
            format!("[127.0.0.1]:{} {other}", self.port),
        )
        .unwrap();
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
