//! `[notify.NAME]` in `config.toml`: who is told how a run went.

use std::path::PathBuf;

use serde::Deserialize;

use super::file::{File, Part};
use crate::notify::{Mail, Server, Tls, Way};

/// How a run went, as far as notifiers care.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Event {
    /// All is well, as it was.
    Success,
    /// All is well again.
    Recovery,
    /// Something needs attention.
    Warning,
    /// Something was not done.
    Failure,
}

impl Event {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Success, Self::Recovery, Self::Warning, Self::Failure];

    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Recovery => "recovery",
            Self::Warning => "warning",
            Self::Failure => "failure",
        }
    }
}

/// A notifier.
#[derive(Debug, Clone, PartialEq)]
pub struct NotifyConfig {
    /// When it is used.
    pub on: Vec<Event>,
    /// How.
    pub way: Way,
}

/// One or several addresses.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged, expecting = "expected an address, or a list of addresses")]
enum Addresses {
    One(String),
    Several(Vec<String>),
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Typed {
    mail: Option<Addresses>,
    from: Option<String>,
    sendmail: Option<PathBuf>,
    smtp: Option<String>,
    tls: Option<String>,
    smtp_user: Option<String>,
    password_file: Option<PathBuf>,
    webhook: Option<String>,
    ping: Option<String>,
    command: Option<Vec<String>>,
    on: Option<Vec<String>>,
}

impl NotifyConfig {
    pub(super) fn of(name: &str, file: &File, part: Part<'_>) -> Result<Self, String> {
        let named = |detail: String| format!("[notify.{name}]: {detail}");
        let typed: Typed = file.part(part).map_err(named)?;
        let checked = typed.check();
        checked.map_err(|detail| file.placed(&["notify", name], named(detail)))
    }
}

/// A mail server's TLS, from what is written and the port.
fn tls(word: Option<&str>, port: u16) -> Result<Tls, String> {
    match word {
        None if port == 465 => Ok(Tls::Always),
        None | Some("starttls") => Ok(Tls::StartTls),
        Some("always") => Ok(Tls::Always),
        Some("none") => Ok(Tls::None),
        Some(other) => Err(format!(
            "tls = '{other}' is not known: always, starttls and none are"
        )),
    }
}

fn is_loopback(host: &str) -> bool {
    host == "localhost"
        || host
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

/// A URL that may be asked: with TLS, or on this machine.
fn url(key: &str, text: String) -> Result<String, String> {
    let parsed: Result<http::Uri, _> = text.parse();
    let is_near = |uri: &http::Uri| {
        uri.host()
            .is_some_and(|host| is_loopback(host.trim_matches(['[', ']'])))
    };
    match parsed {
        Ok(uri) if uri.scheme_str() == Some("https") && uri.host().is_some() => Ok(text),
        Ok(uri) if uri.scheme_str() == Some("http") && is_near(&uri) => Ok(text),
        // The text itself may be a secret.
        Ok(uri) if uri.scheme_str() == Some("http") => Err(format!(
            "{key} must begin with https://: what is sent could be read and changed on its way"
        )),
        _ => Err(format!("{key} must be a URL that begins with https://")),
    }
}

impl Typed {
    fn check(self) -> Result<NotifyConfig, String> {
        let set = [
            self.mail.is_some(),
            self.webhook.is_some(),
            self.ping.is_some(),
            self.command.is_some(),
        ];
        if set.iter().filter(|is_set| **is_set).count() != 1 {
            return Err("exactly one of mail, webhook, ping and command must be set".into());
        }
        let is_ping = self.ping.is_some();
        let on = self.on.clone();
        let way = self.way()?;
        let usual = if is_ping {
            // A switch that is to be heard of as long as backups are made.
            vec![Event::Success, Event::Recovery, Event::Warning]
        } else {
            vec![Event::Failure, Event::Warning, Event::Recovery]
        };
        let on = match on {
            None => usual,
            Some(words) => words
                .iter()
                .map(|word| {
                    Event::ALL
                        .into_iter()
                        .find(|event| event.word() == word)
                        .ok_or_else(|| {
                            let known = Event::ALL.map(Event::word).join(", ");
                            format!("on: '{word}' is not known; there are {known}")
                        })
                })
                .collect::<Result<_, _>>()?,
        };
        Ok(NotifyConfig { on, way })
    }

    fn way(self) -> Result<Way, String> {
        let Some(to) = self.mail else {
            let others = [
                ("from", self.from.is_some()),
                ("sendmail", self.sendmail.is_some()),
                ("smtp", self.smtp.is_some()),
                ("tls", self.tls.is_some()),
                ("smtp_user", self.smtp_user.is_some()),
                ("password_file", self.password_file.is_some()),
            ];
            if let Some((key, _)) = others.iter().find(|(_, is_set)| *is_set) {
                return Err(format!("{key} is for mail"));
            }
            return match (self.webhook, self.ping, self.command) {
                (Some(text), ..) => Ok(Way::Webhook(url("webhook", text)?)),
                (_, Some(text), _) => Ok(Way::Ping(url("ping", text)?)),
                (.., Some(argv)) if argv.first().is_some_and(|program| !program.is_empty()) => {
                    Ok(Way::Command(argv))
                }
                _ => Err("command: a list of words, the program first".into()),
            };
        };
        let to = match to {
            Addresses::One(one) => vec![one],
            Addresses::Several(several) => several,
        };
        if to.is_empty()
            || to
                .iter()
                .any(|address| address.is_empty() || address.contains(char::is_control))
        {
            return Err("mail: an address is missing".into());
        }
        let server = self.smtp.map(|smtp| {
            let (host, port) = match smtp.rsplit_once(':') {
                Some((host, port)) => (
                    host.to_owned(),
                    port.parse()
                        .map_err(|_| format!("smtp = '{smtp}': '{port}' is no port"))?,
                ),
                None => (smtp, 587),
            };
            let tls = tls(self.tls.as_deref(), port)?;
            if tls == Tls::None && self.password_file.is_some() && !is_loopback(&host) {
                return Err(
                    "tls = \"none\": a password is not sent where everybody can read it".to_owned(),
                );
            }
            if self.smtp_user.is_some() != self.password_file.is_some() {
                return Err("smtp_user and password_file must be set together".to_owned());
            }
            Ok(Server {
                host,
                port,
                tls,
                login: self.smtp_user.zip(self.password_file),
            })
        });
        Ok(Way::Mail(Mail {
            to,
            from: self.from,
            sendmail: self
                .sendmail
                .unwrap_or_else(|| PathBuf::from("/usr/sbin/sendmail")),
            server: server.transpose()?,
        }))
    }
}
