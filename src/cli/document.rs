//! `--json`: the one document in which every command answers. The schema is answers.json.

use std::io::Write as _;
use std::sync::{Mutex, MutexGuard};

use serde::Serialize;

use super::exit::Exit;
use crate::error::Error;

/// The form of all answers for programs.
pub const SCHEMA: u32 = 1;

/// What the documents must look like, in the words of json-schema.org.
pub const JSON_SCHEMA: &str = include_str!("answers.json");

/// How much a message matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    Info,
    Warning,
    Error,
}

#[derive(Serialize)]
struct Message {
    level: Level,
    text: String,
}

#[derive(Default)]
struct Document {
    command: String,
    /// The fields of the answer.
    answer: String,
    messages: Vec<Message>,
    /// The answer is written already, piece by piece.
    is_streamed: bool,
    /// A list in it is not closed yet.
    is_open: bool,
}

/// There is one answer in a process, to which many places add.
static DOCUMENT: Mutex<Option<Document>> = Mutex::new(None);

fn document() -> MutexGuard<'static, Option<Document>> {
    DOCUMENT
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The fields of an object, without its braces.
fn fields(value: &impl Serialize) -> String {
    let text = serde_json::to_string_pretty(value).expect("plain data");
    let inner = text
        .strip_prefix('{')
        .and_then(|rest| rest.strip_suffix('}'));
    inner.expect("an object").trim_end().to_owned()
}

#[derive(Serialize)]
struct Head<'a> {
    schema: u32,
    command: &'a str,
}

#[derive(Serialize)]
struct Tail<'a> {
    messages: &'a [Message],
    exit_code: u8,
}

/// From here on everything that is said goes into a document.
pub fn begin(command: &str) {
    *document() = Some(Document {
        command: command.to_owned(),
        ..Document::default()
    });
}

/// Whether a document is wanted.
pub fn is_begun() -> bool {
    document().is_some()
}

/// Whether the document's list goes to the standard output row by row.
pub fn is_streamed() -> bool {
    document()
        .as_ref()
        .is_some_and(|document| document.is_streamed)
}

/// Adds a message, if a document is wanted, and says whether it is.
pub fn say(level: Level, text: &str) -> bool {
    let mut document = document();
    let Some(document) = document.as_mut() else {
        return false;
    };
    document.messages.push(Message {
        level,
        text: text.to_owned(),
    });
    true
}

/// Sets the answer: an object, whose fields become those of the document.
pub fn answer(value: &impl Serialize) {
    if let Some(document) = document().as_mut() {
        document.answer = fields(value);
    }
}

/// The beginning of a document with a long list, which is written row by row: these fields and the list's name. Nothing
/// if no document is wanted.
pub fn open_list(value: &impl Serialize, name: &str) -> String {
    let document = document();
    let head = document.as_ref().map(head);
    head.map_or_else(String::new, |head| {
        format!("{head},{},\n  \"{name}\": [", fields(value))
    })
}

/// From here on that beginning is written.
pub fn begin_list() {
    if let Some(document) = document().as_mut() {
        (document.is_streamed, document.is_open) = (true, true);
    }
}

/// The end of that list.
pub fn close_list() -> &'static str {
    if let Some(document) = document().as_mut() {
        document.is_open = false;
    }
    "\n  ]"
}

fn head(document: &Document) -> String {
    let head = Head {
        schema: SCHEMA,
        command: &document.command,
    };
    format!("{{{}", fields(&head))
}

/// Writes what is left of the document, if one is wanted.
pub fn end(exit: Exit) -> Result<(), Error> {
    let Some(document) = document().take() else {
        return Ok(());
    };
    let tail = fields(&Tail {
        messages: &document.messages,
        exit_code: exit.code(),
    });
    let text = match (document.is_streamed, document.is_open) {
        (true, true) => format!("\n  ],{tail}\n}}\n"),
        (true, false) => format!(",{tail}\n}}\n"),
        (false, _) if document.answer.is_empty() => format!("{},{tail}\n}}\n", head(&document)),
        (false, _) => format!("{},{},{tail}\n}}\n", head(&document), document.answer),
    };
    let mut out = std::io::stdout();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(super::output::unwritten(error))
        }
        _ => Ok(()),
    }
}
