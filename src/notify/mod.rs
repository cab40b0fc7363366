//! Telling somebody how a run went: by mail, a webhook, a dead man's switch, a command.
//!
//! What can be a secret (a URL's path, a password) is in no error.

mod http;
mod mail;

use std::process::Command;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use crate::process::{self, Limits};

pub use mail::{Mail, Server, Tls};

/// A program that tells somebody must not keep a run from ending.
const PROGRAM_TIMEOUT: Duration = Duration::from_mins(2);

/// How somebody is told.
#[derive(Debug, Clone, PartialEq)]
pub enum Way {
    /// A mail.
    Mail(Mail),
    /// The report is posted to a URL as JSON.
    Webhook(String),
    /// A URL is asked for: whoever is there raises an alarm if that stays away.
    Ping(String),
    /// A program gets the report as JSON on its standard input.
    Command(Vec<String>),
}

impl Way {
    /// What it is, without what may be secret.
    pub fn words(&self) -> String {
        match self {
            Self::Mail(mail) => format!("mail to {}", mail.to.join(", ")),
            Self::Webhook(url) => format!("webhook at {}", http::host(url)),
            Self::Ping(url) => format!("ping to {}", http::host(url)),
            Self::Command(argv) => format!("command {}", argv[0]),
        }
    }
}

/// What is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// One line.
    pub subject: String,
    /// For people.
    pub text: String,
    /// For programs: a JSON document.
    pub document: String,
    /// How it went, in a word.
    pub event: &'static str,
    /// The name of this machine.
    pub host: String,
}

/// Tells somebody. An error says why that could not be done.
pub fn send(way: &Way, message: &Message) -> Result<(), String> {
    match way {
        Way::Mail(mail) => mail::send(mail, message),
        Way::Webhook(url) => http::post(url, &message.document),
        Way::Ping(url) => http::get(url),
        Way::Command(argv) => {
            let mut command = Command::new(&argv[0]);
            command
                .args(&argv[1..])
                .env("BTW_EVENT", message.event)
                .env("BTW_SUBJECT", &message.subject)
                .env("BTW_HOST", &message.host);
            program(&mut command, message.document.as_bytes())
        }
    }
}

/// Runs a program that takes a message.
fn program(command: &mut Command, input: &[u8]) -> Result<(), String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let limits = Limits {
        timeout: Some(PROGRAM_TIMEOUT),
        // A run that is being stopped says so all the same.
        stop: &AtomicUsize::new(0),
    };
    let ended = process::run(command, input, &limits, &mut |_| {});
    let ended = ended.map_err(|error| format!("Cannot run {name}: {error}"))?;
    if ended.end.is_success() {
        return Ok(());
    }
    let last = ended
        .said
        .last()
        .map_or_else(String::new, |line| format!(": {line}"));
    Err(format!("{name} {}{last}", ended.end.words()))
}
