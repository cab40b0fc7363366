//! `notify`: whether those who are to be told can be told.

use jiff::Timestamp;

use super::backing::host;
use super::exit::Exit;
use super::output::Output;
use super::{Context, document, stores};
use crate::config::run_state::{NotifierRecord, RunState};
use crate::error::Error;
use crate::notify::{self, Message};

#[derive(clap::Args)]
pub struct Notify {
    /// Only these notifiers [default: all]
    pub names: Vec<String>,
}

pub fn run(context: &Context, args: &Notify) -> Result<Exit, Error> {
    let general = stores::existing_config(context)?;
    let known: Vec<&str> = general.notifiers.keys().map(String::as_str).collect();
    if let Some(name) = args
        .names
        .iter()
        .find(|name| !known.contains(&name.as_str()))
    {
        return Err(Error::Usage(format!(
            "There is no notifier {name}; there are: {}",
            known.join(", ")
        )));
    }
    if known.is_empty() {
        return Err(Error::Usage(
            "no notifier is configured: write [notify.NAME] and mail = \"root\" into config.toml"
                .into(),
        ));
    }
    let host = host();
    let subject = format!("btw-backup on {host}: a test");
    let text = "This is how you are told when backups fail. Nothing is wrong.\n".to_owned();
    let report =
        serde_json::json!({ "host": host, "event": "test", "subject": subject, "text": text });
    let message = Message {
        document: report.to_string(),
        event: "test",
        subject,
        text,
        host,
    };
    let mut exit = Exit::Done;
    let mut rows = Vec::new();
    let state = RunState::new(&context.config_dir);
    let mut record = state.read();
    for (name, config) in &general.notifiers {
        if !args.names.is_empty() && !args.names.contains(name) {
            continue;
        }
        let sent = match config {
            Ok(config) => notify::send(&config.way, &message).map(|()| config.way.words()),
            Err(wrong) => Err(wrong.clone()),
        };
        match &sent {
            Ok(words) => context.output.info(&format!("{name}: {words}: told")),
            Err(error) => {
                Output::error(&Error::Refused(format!("{name}: nobody was told: {error}")));
                exit = Exit::Failed;
            }
        }
        let entry = NotifierRecord {
            time: Timestamp::now(),
            error: sent.as_ref().err().cloned(),
        };
        record.notifiers.insert(name.clone(), entry);
        rows.push(serde_json::json!({ "name": name, "error": sent.err() }));
    }
    state.write(&record)?;
    document::answer(&serde_json::json!({ "notified": rows }));
    Ok(exit)
}
