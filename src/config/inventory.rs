//! All sources that have a working directory, and the stores that they were backed up to.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::dump::DumpSource;
use super::workdir::{Seen, Workdir, path_hash};
use crate::error::Error;

/// A source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceName {
    /// A tree, a file or a block device.
    Tree(PathBuf),
    /// A dump.
    Dump(DumpSource),
}

/// A source with its working directory.
#[derive(Debug)]
pub struct Known {
    /// What it is.
    pub source: SourceName,
    /// The name that it was given; what is dumped has the name of that.
    pub name: String,
    /// Its working directory.
    pub work: Workdir,
    /// The stores that it was backed up to, and what was seen of each.
    pub stores: Vec<(String, Result<Seen, Error>)>,
    /// It is still as the Python tool left it.
    pub is_legacy: bool,
}

/// All of them, by their directories' names.
pub fn all(config_dir: &Path) -> Result<Vec<Known>, Error> {
    let mut found: Vec<Known> = names(config_dir)?
        .into_iter()
        .filter_map(|name| tree(config_dir, &name))
        .collect();
    for dir in ["db", "cmd"] {
        let names = names(&config_dir.join(dir))?;
        found.extend(names.iter().filter_map(|name| dump(config_dir, dir, name)));
    }
    Ok(found)
}

fn names(dir: &Path) -> Result<Vec<OsString>, Error> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::file("read", dir, error)),
    };
    let mut names: Vec<OsString> = entries.flatten().map(|entry| entry.file_name()).collect();
    names.sort();
    Ok(names)
}

fn tree(config_dir: &Path, name: &OsString) -> Option<Known> {
    let path = config_dir.join(name);
    let source = fs::read_link(path.join("src")).ok()?;
    let name = name
        .to_str()?
        .strip_suffix(&format!(".{}", path_hash(&source)))?;
    let is_legacy = !path.join("config.toml").exists();
    let work = Workdir::of_tree(path);
    Some(Known {
        name: name.to_owned(),
        stores: stores(&work),
        source: SourceName::Tree(source),
        work,
        is_legacy,
    })
}

fn dump(config_dir: &Path, dir: &str, name: &OsString) -> Option<Known> {
    let stem = name.to_str()?.strip_suffix(".work")?;
    let source = DumpSource::of_file(dir, stem)?;
    let work = Workdir::of_dump(config_dir, source.clone());
    Some(Known {
        name: stem.to_owned(),
        stores: stores(&work),
        source: SourceName::Dump(source),
        work,
        is_legacy: false,
    })
}

fn stores(work: &Workdir) -> Vec<(String, Result<Seen, Error>)> {
    let names = names(&work.seen_dir()).unwrap_or_default();
    let dsts = names.iter().filter_map(|name| {
        let stem = name.as_bytes().strip_suffix(b".toml")?;
        String::from_utf8(unescaped(stem)).ok()
    });
    dsts.filter_map(|dst| {
        let seen = work.seen(&dst).transpose()?;
        Some((dst, seen))
    })
    .collect()
}

/// The bytes that `%XX` stand for.
pub(super) fn unescaped(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text;
    while let [first, more @ ..] = rest {
        let code = more.get(..2).filter(|_| *first == b'%');
        let byte =
            code.and_then(|code| u8::from_str_radix(std::str::from_utf8(code).ok()?, 16).ok());
        out.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &more[2..] } else { more };
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{SourceName, all};
    use crate::catalog::StoreType;
    use crate::config::dump::DumpSource;
    use crate::config::workdir::{Seen, Workdir};
    use std::path::{Path, PathBuf};

    #[test]
    fn everything_that_was_backed_up_is_found_again() {
        let dir = tempfile::tempdir().unwrap();
        let seen = Seen::new(uuid::Uuid::nil(), 3, None);
        let tree = Workdir::create(dir.path(), Path::new("/a b"), "x.y", StoreType::Rdiff).unwrap();
        tree.remember("some/place %2F", seen).unwrap();
        Workdir::create(dir.path(), Path::new("/never"), "z", StoreType::Rdiff).unwrap();
        let dumps = [
            DumpSource::Command("a/b".into()),
            DumpSource::Database("global".into()),
            DumpSource::Globals,
        ];
        for dump in &dumps {
            let work = Workdir::of_dump(dir.path(), dump.clone());
            work.remember("db", seen).unwrap();
        }
        std::fs::create_dir(dir.path().join("other.AAAA")).unwrap();
        let found = all(dir.path()).unwrap();
        let sources: Vec<&SourceName> = found.iter().map(|known| &known.source).collect();
        assert_eq!(
            sources,
            [
                &SourceName::Tree(PathBuf::from("/a b")),
                &SourceName::Tree(PathBuf::from("/never")),
                &SourceName::Dump(dumps[1].clone()),
                &SourceName::Dump(dumps[2].clone()),
                &SourceName::Dump(dumps[0].clone()),
            ]
        );
        assert_eq!(
            (&*found[0].name, &*found[0].stores[0].0),
            ("x.y", "some/place %2F")
        );
        assert!(found[1].stores.is_empty());
    }
}
