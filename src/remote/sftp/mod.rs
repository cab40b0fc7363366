//! Directories on other machines, over the SFTP that every OpenSSH has.
//!
//! `openssh-sftp-client` speaks the protocol, the user's `ssh` carries it. Not by opendal: its service for this wraps the
//! same two, but leaves no say in ssh's options, cannot sync a file before it gets its name, and cannot create one only if
//! there is none.

use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use openssh_sftp_client::{Error, Sftp as Client, SftpOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Child;
use tokio::runtime::Runtime;

mod files;

use self::files::{fault_of, list, publish, read, write_aside};
use super::place::Host;
use super::ssh::{self, Access, Said};
use super::{Entry, FarDigests, Put, Remote, class, fault};
use crate::digest::Digest;
use crate::error::{RemoteError, RemoteFault};
use crate::store::file::TEMPORARY;

/// A step may take so long, and in addition what its bytes need at [`SLOWEST`].
const PATIENCE: Duration = Duration::from_mins(1);
/// Bytes a second.
const SLOWEST: u64 = 16 << 10;
/// Far digests may have to read terabytes.
const DIGESTS_PATIENCE: Duration = Duration::from_hours(24);

/// The paths come by standard input, with a zero behind each: no shell sees them.
const BLAKE3: &str = "exec xargs -0 -r b3sum --";
const SHA256: &str = "exec xargs -0 -r sha256sum --";

/// A directory that is reached by ssh.
pub(super) struct Sftp {
    name: String,
    host: Host,
    access: Access,
    runtime: Runtime,
    session: Mutex<Option<Arc<Session>>>,
}

/// A connection.
struct Session {
    client: Client,
    said: Said,
    _ssh: Child,
}

impl Sftp {
    pub fn open(name: String, host: &Host, access: &Access) -> Result<Self, RemoteError> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .map_err(|error| fault(&name, "use", "threads", class(&error), error.to_string()))?;
        Ok(Self {
            name,
            host: host.clone(),
            access: access.clone(),
            runtime,
            session: Mutex::default(),
        })
    }

    /// The connection, a new one if the last was lost.
    fn session(&self) -> Result<Arc<Session>, RemoteError> {
        let mut session = self.session.lock().expect("no thread panics with it");
        if let Some(session) = session.as_ref() {
            return Ok(Arc::clone(session));
        }
        let connected = self.runtime.block_on(self.connect());
        let connected = connected.map_err(|(class, detail)| {
            fault(&self.name, "reach", &self.host.host, class, detail)
        })?;
        Ok(Arc::clone(session.insert(Arc::new(connected))))
    }

    async fn connect(&self) -> Result<Session, (RemoteFault, String)> {
        let (mut child, said) = ssh::start(&self.host, &self.access, "sftp", true)
            .map_err(|error| (RemoteFault::Other, error.to_string()))?;
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let (stdin, stdout) = (stdin.expect("it is piped"), stdout.expect("it is piped"));
        let client = Client::new(stdin, stdout, SftpOptions::default());
        match tokio::time::timeout(ssh::CONNECT_TIMEOUT, client).await {
            Ok(Ok(client)) => Ok(Session {
                client,
                said,
                _ssh: child,
            }),
            Ok(Err(error)) => {
                // ssh says why, and ends.
                let _ = tokio::time::timeout(Duration::from_secs(2), child.wait()).await;
                let mut text = said.text();
                let is_changed = text.contains("IDENTIFICATION HAS CHANGED");
                if text.contains("Host key verification failed") && !is_changed {
                    text.push_str("; the host's key is not in known_hosts: log in once by hand, or put it there");
                }
                let fault = if is_final(&text) {
                    RemoteFault::Denied
                } else {
                    RemoteFault::Temporary
                };
                let text = if text.is_empty() {
                    error.to_string()
                } else {
                    text
                };
                Err((fault, text))
            }
            Err(_) => Err((
                RemoteFault::Temporary,
                format!("no login within {} s", ssh::CONNECT_TIMEOUT.as_secs()),
            )),
        }
    }

    /// Does something over the connection, not for ever. A connection after which nothing is sure is given up.
    fn run<T, W: Future<Output = Result<T, Error>>>(
        &self,
        (op, path, bytes): (&'static str, &str, u64),
        work: impl FnOnce(Arc<Session>) -> W,
    ) -> Result<T, RemoteError> {
        let session = self.session()?;
        let patience = PATIENCE + Duration::from_secs(bytes / SLOWEST);
        let work = work(Arc::clone(&session));
        let result = self
            .runtime
            .block_on(async { tokio::time::timeout(patience, work).await });
        let (class, detail) = match result {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => {
                let class = fault_of(&error);
                let said = session.said.text();
                let detail = match error {
                    Error::SftpError(_, message) => message.to_string(),
                    _ if class == RemoteFault::Temporary && !said.is_empty() => said,
                    error => error.to_string(),
                };
                (class, detail)
            }
            Err(_) => (
                RemoteFault::Temporary,
                format!("no answer within {} s", patience.as_secs()),
            ),
        };
        if class == RemoteFault::Temporary {
            *self.session.lock().expect("no thread panics with it") = None;
        }
        Err(fault(&self.name, op, path, class, detail))
    }

    /// A path of the remote as it is over there.
    fn full(&self, path: &str) -> String {
        match (self.host.path.trim_end_matches('/'), path) {
            ("", path) if self.host.path.is_empty() => path.to_owned(),
            (dir, "") => dir.to_owned(),
            (dir, path) => format!("{dir}/{path}"),
        }
    }

    async fn digest_by(
        &self,
        command: &'static str,
        paths: &[String],
    ) -> std::io::Result<Option<Vec<[u8; 32]>>> {
        let (mut child, _) = ssh::start(&self.host, &self.access, command, false)?;
        let mut input = Vec::new();
        for path in paths {
            input.extend_from_slice(self.full(path).as_bytes());
            input.push(0);
        }
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
        let (mut stdin, stdout) = (stdin.expect("it is piped"), stdout.expect("it is piped"));
        let send = async {
            // It may be gone already.
            let _ = stdin.write_all(&input).await;
            drop(stdin);
        };
        // A line is a digest and a path.
        let bound = (input.len() * 4 + paths.len() * 80) as u64;
        let mut output = Vec::new();
        let mut bounded = stdout.take(bound);
        let ((), read) = tokio::join!(send, bounded.read_to_end(&mut output));
        read?;
        let is_all = bounded.limit() > 0;
        // Whoever goes on writing gets no reader.
        drop(bounded);
        if !is_all {
            child.kill().await?;
        }
        let is_done = child.wait().await?.success();
        let lines = output
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty());
        let digests: Option<Vec<[u8; 32]>> = lines.map(digest_of_line).collect();
        Ok(digests.filter(|digests| is_done && digests.len() == paths.len()))
    }
}

/// The digest at a line's beginning; a backslash before it says that the name is escaped.
fn digest_of_line(line: &[u8]) -> Option<[u8; 32]> {
    let text = std::str::from_utf8(line).ok()?;
    let word = text.trim_start_matches('\\').split(' ').next()?;
    word.parse::<Digest>().ok().map(|digest| digest.0)
}

/// What will not be another time.
fn is_final(said: &str) -> bool {
    let words = [
        "Permission denied",
        "Host key verification failed",
        "REMOTE HOST IDENTIFICATION HAS CHANGED",
        "subsystem request failed",
        "not accessible",
        "Could not resolve hostname",
        "Bad configuration",
    ];
    words.iter().any(|word| said.contains(word))
}

impl Remote for Sftp {
    fn name(&self) -> &str {
        &self.name
    }

    fn list(&self, prefix: &str) -> Result<Vec<Entry>, RemoteError> {
        let full = self.full(prefix);
        let below = prefix.rsplit_once('/').map_or("", |(dir, _)| dir);
        let dir = self.full(below);
        let root = self.full("");
        let found = self.run(("list", prefix, 1 << 26), |session| async move {
            list(&session.client, dir, &full).await
        })?;
        let entries = found.into_iter().filter_map(|(path, len)| {
            let path = path.strip_prefix(&root)?.trim_start_matches('/').to_owned();
            Some(Entry { path, len })
        });
        Ok(entries.collect())
    }

    fn read(&self, path: &str, range: Option<Range<u64>>) -> Result<Vec<u8>, RemoteError> {
        let full = self.full(path);
        let bytes = range
            .as_ref()
            .map_or(1 << 25, |range| range.end - range.start);
        self.run(("read", path, bytes), |session| async move {
            read(&session.client, &full, range).await
        })
    }

    fn write(&self, path: &str, content: &[u8], put: Put) -> Result<(), RemoteError> {
        let full = self.full(path);
        let (dir, file) = full.rsplit_once('/').unwrap_or((".", &full));
        // A name of its own: under that of another try the same file may already be published.
        let aside = format!("{dir}/{TEMPORARY}{}-{file}", uuid::Uuid::new_v4().simple());
        let step = ("write", path, content.len() as u64);
        let result = self.run(step, |session| {
            let (aside, full) = (aside.clone(), full.clone());
            let content = content.to_vec();
            async move {
                write_aside(&session.client, &aside, &content).await?;
                publish(&session.client, &aside, &full, put).await
            }
        });
        match result {
            Ok(true) => Ok(()),
            Ok(false) => {
                let detail = "there is one already";
                Err(fault(
                    &self.name,
                    "write",
                    path,
                    RemoteFault::Exists,
                    detail,
                ))
            }
            Err(error) if error.fault == RemoteFault::Other => {
                // SFTP has no word for a full disk.
                let dir = dir.to_owned();
                let room = self.run(("ask about", path, 0), |session| async move {
                    let _ = session.client.fs().remove_file(&aside).await;
                    session.client.fs().statvfs(&dir).await
                });
                let is_full = room.is_ok_and(|room| {
                    room.bavail.saturating_mul(room.frsize) < content.len() as u64
                });
                let fault = if is_full {
                    RemoteFault::Full
                } else {
                    error.fault
                };
                let detail = if is_full {
                    "there is no room left".to_owned()
                } else {
                    error.detail
                };
                Err(RemoteError {
                    detail,
                    fault,
                    ..error
                })
            }
            Err(error) => Err(error),
        }
    }

    fn remove(&self, path: &str) -> Result<(), RemoteError> {
        let full = self.full(path);
        let removed = self.run(("remove", path, 0), |session| async move {
            session.client.fs().remove_file(&full).await
        });
        match removed {
            Err(error) if error.fault == RemoteFault::Missing => Ok(()),
            result => result,
        }
    }

    fn digests(&self, paths: &[String]) -> Result<Option<FarDigests>, RemoteError> {
        let failed = |error: std::io::Error| {
            fault(
                &self.name,
                "compute digests of",
                "",
                class(&error),
                error.to_string(),
            )
        };
        let by = |command| {
            let work = self.digest_by(command, paths);
            let timed = async { tokio::time::timeout(DIGESTS_PATIENCE, work).await };
            self.runtime
                .block_on(timed)
                .unwrap_or(Ok(None))
                .map_err(failed)
        };
        if let Some(digests) = by(BLAKE3)? {
            return Ok(Some(FarDigests::Blake3(
                digests.into_iter().map(Digest).collect(),
            )));
        }
        Ok(by(SHA256)?.map(FarDigests::Sha256))
    }
}
