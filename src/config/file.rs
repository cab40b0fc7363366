//! A file of the configuration as it was read, and where in it things stand.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::{legacy, text};
use crate::error::Error;

/// A file that was read. Its text is TOML, also where the file is the Python tool's.
pub struct File {
    /// Where it is.
    pub path: PathBuf,
    /// Its text.
    pub text: String,
    /// Lines of the text are not lines of the file.
    is_translated: bool,
}

/// A table that is part of a file.
pub type Part<'a> = Spanned<DeValue<'a>>;

impl File {
    /// Reads a TOML file, or the Python tool's file where there is none.
    pub fn find(path: PathBuf, legacy: PathBuf) -> Result<Option<Self>, Error> {
        if let Some(text) = text(&path)? {
            let is_translated = false;
            return Ok(Some(Self {
                path,
                text,
                is_translated,
            }));
        }
        let path = legacy;
        let Some(text) = text(&path)? else {
            return Ok(None);
        };
        let table = legacy::parse(&text).map_err(|bad| Error::Config {
            path: path.clone(),
            detail: format!(
                "line {}: '{}' is not KEY = value with a plain string or number; configuration is not executed. Write it so, or a file with the extension .toml beside it",
                bad.line, bad.text
            ),
        })?;
        let text = toml::to_string(&table).map_err(|error| Error::Config {
            path: path.clone(),
            detail: error.to_string(),
        })?;
        let is_translated = true;
        Ok(Some(Self {
            path,
            text,
            is_translated,
        }))
    }

    /// Reads `config.toml` in a directory, or the Python tool's `config.py` where there is none.
    pub fn in_dir(dir: &Path) -> Result<Option<Self>, Error> {
        Self::find(dir.join("config.toml"), dir.join("config.py"))
    }

    /// The whole file as one type.
    pub fn typed<T: DeserializeOwned>(&self) -> Result<T, Error> {
        toml::from_str(&self.text).map_err(|error| self.refuse(self.said(&error)))
    }

    /// The tables of the file.
    pub fn table(&self) -> Result<DeTable<'_>, Error> {
        let table = DeTable::parse(&self.text).map_err(|error| self.refuse(self.said(&error)))?;
        Ok(table.into_inner())
    }

    /// What is left of a file's tables as one type.
    pub fn rest<T: DeserializeOwned>(&self, rest: DeTable<'_>) -> Result<T, Error> {
        let span = 0..self.text.len();
        let table = Spanned::new(span, DeValue::Table(rest));
        self.part(table).map_err(|detail| self.refuse(detail))
    }

    /// A part as one type.
    pub fn part<T: DeserializeOwned>(&self, part: Part<'_>) -> Result<T, String> {
        T::deserialize(toml::de::ValueDeserializer::from(part)).map_err(|error| self.said(&error))
    }

    /// What the parser says, with line and column.
    fn said(&self, error: &toml::de::Error) -> String {
        let message = error.message().replace('\n', " ");
        match error.span().filter(|_| !self.is_translated) {
            Some(span) => {
                let (line, column) = self.position(span.start);
                let text = self.text.lines().nth(line - 1).unwrap_or_default().trim();
                // A URL may be a secret.
                let shown = if text.contains("://") {
                    String::new()
                } else {
                    format!(", in: {text}")
                };
                format!("line {line}, column {column}: {message}{shown}")
            }
            None => message,
        }
    }

    fn position(&self, at: usize) -> (usize, usize) {
        let before = self.text.get(..at).unwrap_or_default();
        let line = before.matches('\n').count() + 1;
        let column = before
            .rsplit('\n')
            .next()
            .map_or(0, |rest| rest.chars().count())
            + 1;
        (line, column)
    }

    /// A refusal of the file.
    pub fn refuse(&self, detail: String) -> Error {
        Error::Config {
            path: self.path.clone(),
            detail,
        }
    }

    /// A refusal by what a value means, with the place of the key that it names.
    pub fn refuse_value(&self, detail: String) -> Error {
        let detail = self.placed(&[], detail);
        self.refuse(detail)
    }

    /// What is wrong with a value, with the place of the first key of this table that it names, or of the table.
    pub fn placed(&self, table: &[&str], detail: String) -> String {
        let mut words = detail.split(|c: char| !c.is_alphanumeric() && c != '_' && c != '-');
        let place = words
            .find_map(|word| self.place(table, Some(word)))
            .or_else(|| self.place(table, None).filter(|_| !table.is_empty()));
        match place {
            Some((line, column)) => format!("line {line}, column {column}: {detail}"),
            None => detail,
        }
    }

    /// Line and column of a key of a table, or of the table, from 1 on.
    pub fn place(&self, table: &[&str], key: Option<&str>) -> Option<(usize, usize)> {
        if self.is_translated {
            return None;
        }
        let root = DeTable::parse(&self.text).ok()?.into_inner();
        let (mut here, mut at) = (&root, None);
        for name in table {
            let (found, value) = here.get_key_value(*name)?;
            at = Some(found.span().start);
            here = value.get_ref().as_table()?;
        }
        if let Some(key) = key {
            at = Some(here.get_key_value(key)?.0.span().start);
        }
        Some(self.position(at?))
    }
}

/// Takes a table of tables out of a file, such as all that are named `[remote.NAME]`.
pub fn take<'a>(table: &mut DeTable<'a>, name: &str) -> Result<Vec<(String, Part<'a>)>, String> {
    let Some(parts) = table.remove(name) else {
        return Ok(Vec::new());
    };
    match parts.into_inner() {
        DeValue::Table(parts) => Ok(parts
            .into_iter()
            .map(|(key, part)| (key.into_inner().into_owned(), part))
            .collect()),
        _ => Err(format!("{name} must be written as [{name}.NAME]")),
    }
}
