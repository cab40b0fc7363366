//! Real files of this machine, and edits of them.

use std::fs;
use std::path::{Path, PathBuf};

/// Numbers that are the same in every run.
pub struct Dice(u64);

impl Dice {
    /// The same seed, the same numbers.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        // Knuth's MMIX generator; the high bits are the good ones.
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).expect("31 bits") % limit
    }
}

/// The files below some directories, in an order that mixes all kinds.
pub struct Pool {
    files: std::vec::IntoIter<(PathBuf, u64)>,
    taken: usize,
}

impl Pool {
    /// Looks for the files.
    pub fn of(roots: &[PathBuf]) -> Result<Self, String> {
        let mut files = Vec::new();
        for root in roots {
            collect(root, &mut files).map_err(|error| format!("{}: {error}", root.display()))?;
        }
        files.sort_by_cached_key(|(path, _)| {
            *blake3::hash(path.as_os_str().as_encoded_bytes()).as_bytes()
        });
        Ok(Self {
            files: files.into_iter(),
            taken: 0,
        })
    }

    /// Copies the next `count` files of at most `max_bytes` to below `to`, 300 to a directory. Returns their names.
    pub fn take_files(
        &mut self,
        count: usize,
        max_bytes: u64,
        to: &Path,
    ) -> Result<Vec<String>, String> {
        let mut names = Vec::new();
        while names.len() < count {
            let Some((path, bytes)) = self.files.next() else {
                return Err(format!(
                    "there are only {} files: ask for fewer",
                    self.taken
                ));
            };
            if bytes <= max_bytes {
                names.push(self.copy(&path, to)?);
            }
        }
        Ok(names)
    }

    /// Copies files until there are `bytes` of them, but leaves a tenth for later.
    pub fn take_bytes(&mut self, bytes: u64, to: &Path) -> Result<Vec<String>, String> {
        let (mut names, mut sum) = (Vec::new(), 0);
        let keep = self.files.len() / 10;
        while sum < bytes && self.files.len() > keep {
            let Some((path, len)) = self.files.next() else {
                break;
            };
            sum += len;
            names.push(self.copy(&path, to)?);
        }
        if sum < bytes {
            eprintln!("The files of this machine fill only {} MiB", sum >> 20);
        }
        Ok(names)
    }

    fn copy(&mut self, from: &Path, to: &Path) -> Result<String, String> {
        let name = format!("d{:03}/f{:06}", self.taken / 300, self.taken);
        self.taken += 1;
        let path = to.join(&name);
        let failed = |error| format!("{}: {error}", from.display());
        fs::create_dir_all(path.parent().expect("in a directory")).map_err(failed)?;
        fs::copy(from, &path).map_err(failed)?;
        Ok(name)
    }
}

fn collect(dir: &Path, files: &mut Vec<(PathBuf, u64)>) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            collect(&entry.path(), files)?;
        } else if kind.is_file() && fs::File::open(entry.path()).is_ok() {
            files.push((entry.path(), entry.metadata()?.len()));
        }
    }
    Ok(())
}

/// What an editor leaves: one to four passages changed, inserted or removed.
pub fn edited(bytes: &[u8], dice: &mut Dice) -> Vec<u8> {
    let mut out = bytes.to_vec();
    for _ in 0..=dice.below(4) {
        let at = dice.below(out.len() + 1);
        let end = (at + dice.below(80)).min(out.len());
        let row = dice.below(1 << 20);
        let text = line(dice, row);
        out.splice(at..end, text.bytes().take(dice.below(100)));
    }
    out
}

/// A row of a dump.
pub fn line(dice: &mut Dice, row: usize) -> String {
    const WORDS: [&str; 12] = [
        "order", "customer", "street", "invoice", "Berlin", "paid", "open", "note", "Müller",
        "item", "net", "gross",
    ];
    let word = |dice: &mut Dice| WORDS[dice.below(WORDS.len())];
    format!(
        "INSERT INTO t VALUES ({row},'{} {} {}',{}.{:02},'2026-{:02}-{:02}',{});\n",
        word(dice),
        word(dice),
        word(dice),
        dice.below(100_000),
        dice.below(100),
        1 + dice.below(12),
        1 + dice.below(28),
        dice.below(1 << 30),
    )
}
