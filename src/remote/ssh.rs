//! The user's own `ssh` as the way to another machine: it knows their keys, hosts and jumps. It never asks anything, never
//! waits for ever, and no name that comes from elsewhere reaches a shell.

use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};

use super::place::Host;

/// What is kept of what ssh says.
const SAID_MAX_BYTES: usize = 4096;
/// Until one is logged in.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

/// How a machine is reached; what is not set is as ssh is configured.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// The file with the key.
    pub identity: Option<PathBuf>,
    /// The file with the keys of hosts.
    pub known_hosts: Option<PathBuf>,
}

/// What ssh and the programs over there said on standard error.
#[derive(Clone, Default)]
pub(super) struct Said(Arc<Mutex<Vec<u8>>>);

impl Said {
    /// The text, on one line.
    pub fn text(&self) -> String {
        let bytes = self.0.lock().expect("no thread panics with it");
        let text = String::from_utf8_lossy(&bytes);
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        lines.collect::<Vec<_>>().join("; ")
    }
}

/// Options without which ssh could ask or hang, or open more than one connection needs.
const OPTIONS: [&str; 8] = [
    "BatchMode=yes",
    "ConnectTimeout=15",
    "ServerAliveInterval=15",
    "ServerAliveCountMax=4",
    "ClearAllForwardings=yes",
    "ForwardAgent=no",
    "PermitLocalCommand=no",
    "EscapeChar=none",
];

/// The arguments of ssh before the command.
fn arguments(host: &Host, access: &Access, subsystem: bool) -> Vec<String> {
    let mut arguments = vec!["-T".to_owned(), "-x".to_owned()];
    for option in OPTIONS {
        arguments.extend(["-o".to_owned(), option.to_owned()]);
    }
    if let Some(known) = &access.known_hosts {
        arguments.extend([
            "-o".to_owned(),
            format!("UserKnownHostsFile={}", quoted(known)),
        ]);
    }
    if let Some(identity) = &access.identity {
        let identity = format!("IdentityFile={}", quoted(identity));
        arguments.extend(["-o", "IdentitiesOnly=yes", "-o", &identity].map(str::to_owned));
    }
    if let Some(port) = host.port {
        arguments.extend(["-p".to_owned(), port.to_string()]);
    }
    if let Some(user) = &host.user {
        arguments.extend(["-l".to_owned(), user.clone()]);
    }
    if subsystem {
        arguments.push("-s".to_owned());
    }
    arguments.extend(["--".to_owned(), host.host.clone()]);
    arguments
}

/// A path as a value of ssh's configuration.
fn quoted(path: &std::path::Path) -> String {
    format!("\"{}\"", path.display())
}

/// Starts ssh with a command, which is a constant of this program, or a subsystem of its server.
pub(super) fn start(
    host: &Host,
    access: &Access,
    command: &'static str,
    subsystem: bool,
) -> std::io::Result<(Child, Said)> {
    let mut child = Command::new("ssh")
        .args(arguments(host, access, subsystem))
        .arg(command)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                std::io::Error::other("ssh is not installed here; install openssh-client")
            }
            _ => error,
        })?;
    let said = Said::default();
    if let Some(mut stderr) = child.stderr.take() {
        let said = said.clone();
        tokio::spawn(async move {
            let mut buffer = [0; 1024];
            while let Ok(len @ 1..) = stderr.read(&mut buffer).await {
                let mut kept = said.0.lock().expect("no thread panics with it");
                let room = SAID_MAX_BYTES.saturating_sub(kept.len());
                kept.extend_from_slice(&buffer[..len.min(room)]);
            }
        });
    }
    Ok((child, said))
}

#[cfg(test)]
mod tests {
    use super::{Access, arguments};
    use crate::remote::Place;

    #[test]
    fn f6_the_host_stands_behind_the_end_of_options() {
        let Ok(Place::Sftp(host)) = Place::parse("sftp://ada@host:2222/b") else {
            panic!("a place");
        };
        let access = Access {
            identity: Some("/k y".into()),
            known_hosts: None,
        };
        let arguments = arguments(&host, &access, true);
        let end = arguments.iter().position(|word| word == "--").unwrap();
        assert_eq!(arguments[end + 1..], ["host"]);
        assert!(arguments.contains(&"BatchMode=yes".to_owned()));
        assert!(arguments.contains(&"IdentityFile=\"/k y\"".to_owned()));
        assert!(arguments[..end].ends_with(&["-l", "ada", "-s"].map(str::to_owned)));
    }
}
