//! What of the source is backed up: patterns, tags, sizes, mounts.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::error::Error;

/// What is not part of the source.
#[derive(Debug, Default, Clone)]
pub struct Selection {
    /// Left out: patterns as in a .gitignore file at the source's root.
    pub exclude: Vec<String>,
    /// Kept with everything below, whatever `exclude` says: the same kind of patterns.
    pub include: Vec<String>,
    /// Files longer than this are left out.
    pub larger_than: Option<u64>,
    /// Of a directory with such a file in it, only that file is kept.
    pub tags: Vec<String>,
    /// What lies on another file system than the source is left out.
    pub one_file_system: bool,
    /// Block devices that are read as images: the same kind of patterns.
    pub read_special: Vec<String>,
    /// Only what lies at or below one of these paths is looked at, and the directories on the way; everything if there are
    /// none.
    pub below: Vec<Vec<u8>>,
    /// Directories that are left out with everything below: device and inode.
    pub leave_out: HashSet<(u64, u64)>,
}

/// Why something is left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeftOut {
    /// It holds the backups, or what the program remembers of them.
    Backups,
    /// Its content is the kernel's.
    PseudoFileSystem,
    /// Another file system begins there.
    OtherFileSystem,
    /// It is one of the directories that it lies in, mounted there again.
    Loop,
    /// The directory holds this tag.
    Tagged(String),
    /// A pattern says so.
    Excluded,
    /// It is longer than allowed.
    TooLarge(u64),
    /// No tar can hold it.
    Socket,
}

impl LeftOut {
    /// Whether the configuration asks for it: then it is no news in every run.
    pub fn is_asked_for(&self) -> bool {
        matches!(self, Self::Excluded | Self::Tagged(_) | Self::TooLarge(_))
    }
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Backups => f.write_str("it holds the backups or their bookkeeping"),
            Self::PseudoFileSystem => f.write_str("the content of a pseudo file system"),
            Self::OtherFileSystem => {
                f.write_str("the content is on another file system (ONE_FILE_SYSTEM)")
            }
            Self::Loop => f.write_str("a directory that it lies in is mounted there again"),
            Self::Tagged(tag) => write!(f, "the content, because of {tag} in it"),
            Self::Excluded => f.write_str("a pattern in EXCLUDE matches"),
            Self::TooLarge(bytes) => write!(f, "{bytes} bytes are more than EXCLUDE_LARGER_THAN"),
            Self::Socket => f.write_str("a socket cannot be stored"),
        }
    }
}

/// What the patterns say of a directory and so of what lies below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Kept, unless a pattern excludes it.
    Kept,
    /// Kept by `include`, with everything below.
    Included,
    /// Left out.
    Excluded,
    /// Left out, but something below may be included.
    Searched,
}

/// A selection ready for use.
pub struct Rules {
    exclude: Gitignore,
    include: Gitignore,
    /// Where the patterns of `include` can match: directories that they name, or everywhere.
    include_below: Vec<Vec<u8>>,
    read_special: Gitignore,
    selection: Selection,
}

impl Rules {
    /// Reads the patterns of a selection from a source.
    pub fn new(selection: &Selection, source: &Path) -> Result<Self, Error> {
        Ok(Self {
            exclude: patterns("EXCLUDE", &selection.exclude, source)?,
            include: patterns("INCLUDE", &selection.include, source)?,
            include_below: selection
                .include
                .iter()
                .filter(|pattern| !pattern.starts_with(['!', '#']))
                .map(|pattern| literal_start(pattern))
                .collect(),
            read_special: patterns("--read-special", &selection.read_special, source)?,
            selection: selection.clone(),
        })
    }

    /// What becomes of a path in a directory with this verdict.
    pub fn verdict(&self, parent: Verdict, path: &[u8], is_dir: bool) -> Verdict {
        if parent == Verdict::Included || is_match(&self.include, path, is_dir) {
            return Verdict::Included;
        }
        if parent == Verdict::Kept && !is_match(&self.exclude, path, is_dir) {
            return Verdict::Kept;
        }
        let is_searched = |below: &Vec<u8>| is_below(below, path) || is_below(path, below);
        if is_dir && self.include_below.iter().any(is_searched) {
            Verdict::Searched
        } else {
            Verdict::Excluded
        }
    }

    /// Whether a path is to be looked at.
    pub fn is_looked_at(&self, path: &[u8]) -> bool {
        let below = &self.selection.below;
        below.is_empty()
            || below
                .iter()
                .any(|wanted| is_below(wanted, path) || is_below(path, wanted))
    }

    /// Whether a block device is to be read as an image.
    pub fn is_read_special(&self, path: &[u8]) -> bool {
        is_match(&self.read_special, path, false)
    }

    /// Whether a file is too large.
    pub fn is_too_large(&self, size: u64) -> bool {
        self.selection.larger_than.is_some_and(|limit| size > limit)
    }

    /// What else was selected.
    pub fn selection(&self) -> &Selection {
        &self.selection
    }
}

/// Patterns by themselves.
pub struct Patterns(Gitignore);

impl Patterns {
    /// Reads patterns; `key` names in errors where they stand.
    pub fn new(key: &str, lines: &[String]) -> Result<Self, Error> {
        patterns(key, lines, Path::new("/")).map(Self)
    }

    /// Whether a path matches.
    pub fn matches(&self, path: &[u8], is_dir: bool) -> bool {
        is_match(&self.0, path, is_dir)
    }

    /// Whether a path matches, or a directory that it lies in.
    pub fn covers(&self, path: &[u8], is_dir: bool) -> bool {
        let inner = path
            .iter()
            .enumerate()
            .filter(|(_, byte)| **byte == b'/')
            .any(|(at, _)| self.matches(&path[..at], true));
        inner || self.matches(path, is_dir)
    }
}

fn is_match(patterns: &Gitignore, path: &[u8], is_dir: bool) -> bool {
    !patterns.is_empty()
        && patterns
            .matched(Path::new(OsStr::from_bytes(path)), is_dir)
            .is_ignore()
}

/// Whether `path` is `dir` or lies below it. Everything lies below the empty path.
pub fn is_below(dir: &[u8], path: &[u8]) -> bool {
    dir.is_empty()
        || path
            .strip_prefix(dir)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

/// The directories that a pattern begins with; none if it may match anywhere.
fn literal_start(pattern: &str) -> Vec<u8> {
    let pattern = pattern.trim_end();
    if !pattern.trim_end_matches('/').contains('/') {
        return Vec::new();
    }
    let parts = pattern.trim_matches('/').split('/');
    let literal: Vec<&str> = parts
        .take_while(|part| !part.contains(['*', '?', '[', '{', '\\']))
        .collect();
    literal.join("/").into_bytes()
}

fn patterns(key: &str, lines: &[String], source: &Path) -> Result<Gitignore, Error> {
    let mut builder = GitignoreBuilder::new("/");
    for line in lines {
        let refuse = |why: String| {
            Error::Usage(format!(
                "{key}: cannot understand the pattern '{line}': {why}"
            ))
        };
        if let Some(inner) = source.to_str().and_then(|source| line.strip_prefix(source))
            && inner.starts_with('/')
            && source != Path::new("/")
        {
            return Err(refuse(format!(
                "patterns begin at the source; write '{inner}'"
            )));
        }
        if has_open_class(line) {
            return Err(refuse("a [ without its ]".into()));
        }
        builder
            .add_line(None, &plain_braces(line))
            .map_err(|error| refuse(error.to_string()))?;
    }
    builder
        .build()
        .map_err(|error| Error::Usage(format!("{key}: {error}")))
}

/// Braces stand for themselves in a .gitignore; the matcher would expand them.
fn plain_braces(pattern: &str) -> String {
    let (mut out, mut in_class, mut chars) = (String::new(), false, pattern.chars());
    while let Some(c) = chars.next() {
        match c {
            '\\' => {
                out.push(c);
                out.extend(chars.next());
            }
            '{' | '}' if !in_class => {
                out.push('[');
                out.push(c);
                out.push(']');
            }
            _ => {
                in_class = (in_class || c == '[') && c != ']';
                out.push(c);
            }
        }
    }
    out
}

/// The matcher takes an open class for plain text, which is hardly what was meant.
fn has_open_class(pattern: &str) -> bool {
    let mut rest = pattern;
    while let Some(at) = rest.find(['[', '\\']) {
        let (special, after) = rest[at..].split_at(1);
        if special == "\\" {
            rest = after
                .get(after.chars().next().map_or(0, char::len_utf8)..)
                .unwrap_or("");
            continue;
        }
        // A ] right at the beginning of a class stands for itself.
        let inner = after.trim_start_matches(['!', '^']);
        let Some(end) = inner.get(1..).and_then(|inner| inner.find(']')) else {
            return true;
        };
        rest = &inner[end + 2..];
    }
    false
}

#[cfg(test)]
mod tests {
    use super::{Rules, Selection, Verdict, has_open_class};
    use std::path::Path;

    fn rules(exclude: &[&str], include: &[&str]) -> Rules {
        let owned = |lines: &[&str]| lines.iter().map(ToString::to_string).collect();
        let selection = Selection {
            exclude: owned(exclude),
            include: owned(include),
            ..Selection::default()
        };
        Rules::new(&selection, Path::new("/home/ada")).unwrap()
    }

    #[test]
    fn what_include_names_is_kept_within_what_exclude_leaves_out() {
        let rules = rules(&["/cache/", "*.o"], &["/cache/keep/", "!x"]);
        let of = |parent, path: &str, is_dir| rules.verdict(parent, path.as_bytes(), is_dir);
        assert_eq!(of(Verdict::Kept, "cache", true), Verdict::Searched);
        assert_eq!(
            of(Verdict::Searched, "cache/other", true),
            Verdict::Excluded
        );
        assert_eq!(of(Verdict::Searched, "cache/keep", true), Verdict::Included);
        assert_eq!(
            of(Verdict::Included, "cache/keep/a.o", false),
            Verdict::Included
        );
        assert_eq!(of(Verdict::Kept, "a.o", false), Verdict::Excluded);
        assert_eq!(of(Verdict::Kept, "cached", true), Verdict::Kept);
    }

    #[test]
    fn everything_but_what_is_included_can_be_left_out() {
        let rules = rules(&["*"], &["/etc/", "*.conf"]);
        let of = |parent, path: &str, is_dir| rules.verdict(parent, path.as_bytes(), is_dir);
        assert_eq!(of(Verdict::Kept, "etc", true), Verdict::Included);
        assert_eq!(of(Verdict::Kept, "var", true), Verdict::Searched);
        assert_eq!(
            of(Verdict::Searched, "var/a.conf", false),
            Verdict::Included
        );
        assert_eq!(of(Verdict::Searched, "var/a", false), Verdict::Excluded);
    }

    #[test]
    fn braces_are_plain_as_in_a_gitignore() {
        let rules = rules(&["/{a,b}"], &[]);
        let of = |path: &str| rules.verdict(Verdict::Kept, path.as_bytes(), false);
        assert_eq!(
            (of("{a,b}"), of("a"), of("b")),
            (Verdict::Excluded, Verdict::Kept, Verdict::Kept)
        );
    }

    #[test]
    fn patterns_that_cannot_be_meant_are_refused() {
        for (pattern, open) in [
            ("[a", true),
            ("[a]", false),
            ("\\[a", false),
            ("[!]a]", false),
            ("a[]", true),
            ("\\", false),
        ] {
            assert_eq!(has_open_class(pattern), open, "{pattern}");
        }
        let selection = Selection {
            exclude: vec!["/home/ada/cache".into()],
            ..Selection::default()
        };
        let error = Rules::new(&selection, Path::new("/home/ada"))
            .err()
            .unwrap();
        assert!(error.to_string().contains("write '/cache'"), "{error}");
    }
}
