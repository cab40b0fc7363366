//! Our reader of foreign archives, GNU tar and Python's tarfile name the same members (CASES H2).

#![expect(
    clippy::unwrap_used,
    reason = "a test ends where something is not as it must be"
)]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::BufReader;
use std::path::Path;
use std::process::Command;

use btw_backup::catalog::{Content, Kind, Member};
use btw_backup::tree::archive::ArchiveReader;
use btw_backup::tree::header::header;

const BY_PYTHON: usize = 7_500;
const BY_US: usize = 2_500;

type Names = Option<Vec<Vec<u8>>>;

/// Names without what readers add and drop: a slash behind directories.
fn plain(name: &[u8]) -> Vec<u8> {
    let end = name
        .iter()
        .rposition(|byte| *byte != b'/')
        .map_or(0, |last| last + 1);
    name[..end].to_vec()
}

fn ours(path: &Path) -> Names {
    let mut reader = ArchiveReader::new(BufReader::new(File::open(path).unwrap())).ok()?;
    let mut names = Vec::new();
    while let Some(entry) = reader.next_entry().ok()? {
        names.push(plain(&entry.member.path));
    }
    Some(names)
}

fn python(dir: &Path) -> BTreeMap<String, Names> {
    let output = Command::new("python3")
        .args(["tests/archives.py", "list"])
        .arg(dir)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let lines = String::from_utf8(output.stdout).unwrap();
    let hex = |text: String| -> Vec<u8> {
        (0..text.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
            .collect()
    };
    lines
        .lines()
        .map(|line| {
            let (name, members): (String, Option<Vec<String>>) =
                serde_json::from_str(line).unwrap();
            (
                name,
                members.map(|members| {
                    members
                        .into_iter()
                        .map(|member| plain(&hex(member)))
                        .collect()
                }),
            )
        })
        .collect()
}

/// One shell for all archives; each name on a line with escapes, each archive closed by its status.
fn gnu(dir: &Path) -> BTreeMap<String, Names> {
    let script = "cd \"$0\" && for f in *.tar; do LC_ALL=C tar --quoting-style=escape -Ptf \"$f\" 2>/dev/null; echo \"= $? $f\"; done";
    let output = Command::new("bash")
        .args(["-c", script])
        .arg(dir)
        .output()
        .unwrap();
    let mut all = BTreeMap::new();
    let mut names = Vec::new();
    for line in output.stdout.split(|byte| *byte == b'\n') {
        match line.strip_prefix(b"= ") {
            Some(end) if end.ends_with(b".tar") => {
                let end = std::str::from_utf8(end).unwrap();
                let (status, file) = end.split_once(' ').unwrap();
                let found = std::mem::take(&mut names);
                all.insert(file.to_owned(), (status == "0").then_some(found));
            }
            _ if line.is_empty() => {}
            _ => names.push(plain(&unescape(line))),
        }
    }
    all
}

fn unescape(line: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = line;
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'\\' {
            out.push(*first);
            continue;
        }
        let letters = [
            (b'n', b'\n'),
            (b't', b'\t'),
            (b'r', b'\r'),
            (b'a', 7),
            (b'b', 8),
            (b'f', 12),
            (b'v', 11),
            (b'\\', b'\\'),
            (b' ', b' '),
        ];
        if let Some((_, byte)) = letters.iter().find(|(letter, _)| *letter == rest[0]) {
            out.push(*byte);
            rest = &rest[1..];
        } else {
            out.push(u8::from_str_radix(std::str::from_utf8(&rest[..3]).unwrap(), 8).unwrap());
            rest = &rest[3..];
        }
    }
    out
}

struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    fn name(&mut self) -> Vec<u8> {
        let mut name = Vec::new();
        for part in 0..=self.below(3) {
            if part > 0 {
                name.push(b'/');
            }
            for _ in 0..=self.below(120) {
                name.push(match self.below(4) {
                    0 => u8::try_from(1 + self.below(255)).unwrap(),
                    _ => b'a' + u8::try_from(self.below(26)).unwrap(),
                });
                if name.ends_with(b"/") {
                    *name.last_mut().unwrap() = b'_';
                }
            }
        }
        name
    }
}

/// Archives as our own writer makes them.
fn make_ours(dir: &Path) {
    let mut dice = Dice(1);
    for number in 0..BY_US {
        let mut archive = Vec::new();
        for _ in 0..dice.below(6) {
            let kinds = [
                Kind::Regular,
                Kind::Directory,
                Kind::Symlink,
                Kind::HardLink,
                Kind::CharDevice,
                Kind::BlockDevice,
                Kind::Fifo,
            ];
            let kind = kinds[usize::try_from(dice.below(7)).unwrap()];
            let data = vec![
                b'd';
                if kind == Kind::Regular {
                    usize::try_from(dice.below(1500)).unwrap()
                } else {
                    0
                }
            ];
            let member = Member {
                path: dice.name(),
                kind,
                mode: u32::try_from(dice.below(0o10_000)).unwrap(),
                uid: u32::try_from(dice.below(1 << 32) & 0xffff_fffe).unwrap(),
                gid: u32::try_from(dice.below(1 << 22)).unwrap(),
                user: b"user".to_vec(),
                group: Vec::new(),
                mtime: (
                    i64::try_from(dice.below(1 << 34)).unwrap() - (1 << 30),
                    u32::try_from(dice.below(1_000_000_000)).unwrap(),
                ),
                link: if matches!(kind, Kind::Symlink | Kind::HardLink) {
                    dice.name()
                } else {
                    Vec::new()
                },
                device: (7, 300),
                xattrs: vec![(b"user.a=b".to_vec(), vec![0, b'\n', 255])],
                content: Content::small(&data),
                header_bytes: 0,
                torn: false,
            };
            archive.extend_from_slice(&header(&member));
            archive.extend_from_slice(&data);
            archive.resize(archive.len().next_multiple_of(512), 0);
        }
        archive.resize(archive.len() + 1024, 0);
        fs::write(dir.join(format!("u{number:06}.tar")), archive).unwrap();
    }
}

#[test]
fn h2_three_readers_name_the_same_members() {
    let dir = tempfile::tempdir().unwrap();
    let made = Command::new("python3")
        .args(["tests/archives.py", "make"])
        .arg(dir.path())
        .arg(BY_PYTHON.to_string())
        .status()
        .unwrap();
    assert!(made.success());
    make_ours(dir.path());
    let (python, gnu) = (python(dir.path()), gnu(dir.path()));
    assert_eq!(
        (python.len(), gnu.len()),
        (BY_PYTHON + BY_US, BY_PYTHON + BY_US)
    );
    let mut members = 0;
    for (file, names) in &python {
        let found = ours(&dir.path().join(file));
        assert!(
            found.is_some(),
            "{file} is refused: {:?}",
            refusal(&dir.path().join(file))
        );
        same(file, "Python", found.as_deref(), names.as_deref());
        same(file, "GNU tar", found.as_deref(), gnu[file].as_deref());
        members += found.unwrap().len();
    }
    println!(
        "H2: {} archives with {members} members named alike by us, GNU tar and Python's tarfile",
        python.len()
    );
    spoilt(dir.path());
}

#[track_caller]
fn same(file: &str, who: &str, found: Option<&[Vec<u8>]>, names: Option<&[Vec<u8>]>) {
    let (found, names) = (found.unwrap_or_default(), names.unwrap_or_default());
    for (ours, theirs) in found.iter().zip(names) {
        assert_eq!(
            ours.escape_ascii().to_string(),
            theirs.escape_ascii().to_string(),
            "{file}: we and {who}"
        );
    }
    assert_eq!(found.len(), names.len(), "{file}: we and {who}");
}

/// Archives with one byte changed: what we still accept must mean to us what it means to the others.
fn spoilt(dir: &Path) {
    let other = tempfile::tempdir().unwrap();
    let mut dice = Dice(2);
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let mut bytes = fs::read(&path).unwrap();
        let at = usize::try_from(dice.below(bytes.len() as u64)).unwrap();
        bytes[at] = u8::try_from(dice.below(256)).unwrap();
        fs::write(other.path().join(path.file_name().unwrap()), bytes).unwrap();
    }
    let (python, gnu) = (python(other.path()), gnu(other.path()));
    let (mut accepted, mut refused) = (0, 0);
    for (file, names) in &python {
        let Some(found) = ours(&other.path().join(file)) else {
            refused += 1;
            continue;
        };
        accepted += 1;
        let agrees = |others: &Names| others.as_ref().is_none_or(|others| *others == found);
        assert!(
            agrees(names) && agrees(&gnu[file]),
            "{file}: we {found:?}, Python {names:?}, GNU tar {:?}",
            gnu[file]
        );
    }
    println!(
        "H2: of as many with one byte changed {refused} refused, {accepted} accepted with the meaning that the others see"
    );
}

fn refusal(path: &Path) -> String {
    let mut reader = ArchiveReader::new(BufReader::new(File::open(path).unwrap())).unwrap();
    loop {
        match reader.next_entry() {
            Ok(Some(_)) => {}
            other => return format!("{other:?}"),
        }
    }
}
