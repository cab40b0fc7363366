//! Mail, by the machine's `sendmail` or by a server.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use lettre::message::Mailbox;
use lettre::message::header::ContentType;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls as SmtpTls, TlsParameters};
use lettre::{SmtpTransport, Transport};

use super::{Message, program};
use crate::error::with_causes;

const TIMEOUT: Duration = Duration::from_secs(30);
const READABLE_BY_OTHERS: u32 = 0o077;

/// Who gets mail, and by which way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mail {
    /// Addresses, or users of this machine.
    pub to: Vec<String>,
    /// The sender, if not btw-backup at this machine.
    pub from: Option<String>,
    /// The program that takes mail if there is no server.
    pub sendmail: PathBuf,
    /// The server.
    pub server: Option<Server>,
}

/// A server that takes mail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Its name.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// Whether what is sent can be read on its way.
    pub tls: Tls,
    /// A user, and the file with the password.
    pub login: Option<(String, PathBuf)>,
}

/// When TLS begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tls {
    /// At once.
    Always,
    /// After a greeting, but before anything else.
    StartTls,
    /// Never.
    None,
}

pub(super) fn send(mail: &Mail, message: &Message) -> Result<(), String> {
    let letter = letter(mail, message)?;
    let Some(server) = &mail.server else {
        let mut command = Command::new(&mail.sendmail);
        command.args(["-i", "--"]).args(&mail.to);
        return program(&mut command, &letter.formatted());
    };
    let tls = || {
        TlsParameters::new(server.host.clone())
            .map_err(|error| format!("TLS with {}: {}", server.host, with_causes(&error)))
    };
    let mut transport = SmtpTransport::builder_dangerous(&server.host)
        .port(server.port)
        .timeout(Some(TIMEOUT))
        .tls(match server.tls {
            Tls::Always => SmtpTls::Wrapper(tls()?),
            Tls::StartTls => SmtpTls::Required(tls()?),
            Tls::None => SmtpTls::None,
        });
    if let Some((user, file)) = &server.login {
        transport = transport.credentials(Credentials::new(user.clone(), password(file)?));
    }
    let sent = transport.build().send(&letter);
    sent.map(drop)
        .map_err(|error| format!("{}:{}: {}", server.host, server.port, with_causes(&error)))
}

fn letter(mail: &Mail, message: &Message) -> Result<lettre::Message, String> {
    // A user of this machine has no domain, which addresses must have.
    let mailbox = |address: &str, domain: &str| {
        let full = if address.contains('@') {
            address.to_owned()
        } else {
            format!("{address}@{domain}")
        };
        full.parse::<Mailbox>()
            .map_err(|error| format!("'{address}' is no address: {error}"))
    };
    let from = match &mail.from {
        Some(from) => mailbox(from, "localhost")?,
        None => {
            mailbox("btw-backup", &message.host).or_else(|_| mailbox("btw-backup", "localhost"))?
        }
    };
    let mut builder = lettre::Message::builder()
        .from(from)
        .subject(&message.subject)
        .message_id(None)
        .header(ContentType::TEXT_PLAIN);
    for to in &mail.to {
        builder = builder.to(mailbox(to, "localhost")?);
    }
    builder
        .body(message.text.clone())
        .map_err(|error| error.to_string())
}

/// A password, from a file that nobody else can read.
fn password(file: &Path) -> Result<String, String> {
    let wrong = |error: std::io::Error| format!("password_file {}: {error}", file.display());
    let mode = std::fs::metadata(file).map_err(wrong)?.mode();
    if mode & READABLE_BY_OTHERS != 0 {
        return Err(format!(
            "password_file {0} can be read by others: chmod 600 {0}",
            file.display()
        ));
    }
    let text = std::fs::read_to_string(file).map_err(wrong)?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}
