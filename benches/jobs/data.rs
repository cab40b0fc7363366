//! The data that the tools are tried with, made the same in every run on one machine.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::measure::quiet;
use super::pool::{Dice, Pool, edited, line};

const BLOCK: u64 = 4096;

/// A source in a state of its life.
pub struct Data {
    /// The directory that is backed up.
    pub live: PathBuf,
    /// What it was at first, to compare the oldest version with.
    pub first: PathBuf,
    set: Set,
    work: PathBuf,
    pool: Pool,
    alive: Vec<String>,
}

/// A kind of source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Set {
    /// An ext4 image of so many bytes, about half of them data; with holes, or fully allocated.
    Image { bytes: u64, sparse: bool },
    /// So many real files.
    Tree { files: usize },
    /// Successive releases of a source tree: archives in a directory, in the order of their names.
    Releases { archives: Vec<PathBuf> },
    /// An SQL dump of so many bytes.
    Dump { bytes: u64 },
    /// So many small files.
    Small { files: usize },
}

impl Data {
    /// Makes the first state of a source below `work`.
    pub fn make(set: &Set, work: &Path, pool: Pool) -> Result<Self, String> {
        let mut data = Self {
            live: work.join("live"),
            first: work.join("first"),
            set: set.clone(),
            work: work.to_owned(),
            pool,
            alive: Vec::new(),
        };
        fs::create_dir_all(&data.live).map_err(|error| error.to_string())?;
        match set {
            Set::Image { bytes, sparse } => data.image(*bytes, *sparse)?,
            Set::Tree { files } => {
                data.alive = data.pool.take_files(*files, 256 << 10, &data.live)?;
            }
            Set::Releases { archives } => data.release(&archives[0], 0)?,
            Set::Dump { bytes } => data.dump(*bytes)?,
            Set::Small { files } => data.small(*files)?,
        }
        let copy = "cp -a --sparse=auto $A $B";
        quiet(copy, &env(&[("A", &data.live), ("B", &data.first)]))?;
        Ok(data)
    }

    /// Lets the source live a day: generation `number`, from 1.
    pub fn change(&mut self, number: usize) -> Result<(), String> {
        match self.set.clone() {
            Set::Image { .. } => self.change_image(number),
            Set::Tree { files } => self.change_tree(number, files / 100),
            Set::Releases { archives } => self.release(&archives[number], number),
            Set::Dump { .. } => self.change_dump(number),
            Set::Small { .. } => self.change_small(number),
        }
    }

    /// Gives every file a new time and nothing else.
    pub fn touch(&self) -> Result<(), String> {
        let script = "find $LIVE -type f -print0 | xargs -0 touch -c";
        quiet(script, &env(&[("LIVE", &self.live)])).map(drop)
    }

    fn image(&mut self, bytes: u64, sparse: bool) -> Result<(), String> {
        let stage = self.work.join("stage");
        let reserve = bytes / 25;
        fs::create_dir_all(&stage).map_err(|error| error.to_string())?;
        Self::database(&stage.join("db"), reserve)?;
        self.alive = self
            .pool
            .take_bytes(bytes / 2 - reserve, &stage.join("usr"))?;
        let env = env(&[("STAGE", &stage), ("IMAGE", &self.image_path())]);
        quiet(
            &format!(
                "truncate -s {bytes} $IMAGE && E2FSPROGS_FAKE_TIME=1700000000 mkfs.ext4 -q -F -d $STAGE \
                 -U 11111111-2222-3333-4444-555555555555 -E hash_seed=11111111-2222-3333-4444-555555555555 $IMAGE"
            ),
            &env,
        )?;
        if !sparse {
            quiet(
                "cp --sparse=never $IMAGE $IMAGE.full && mv $IMAGE.full $IMAGE",
                &env,
            )?;
        }
        fs::remove_dir_all(&stage).map_err(|error| error.to_string())
    }

    fn image_path(&self) -> PathBuf {
        self.live.join("disk.img")
    }

    /// Records as a database has them: half text, half numbers.
    fn database(path: &Path, bytes: u64) -> Result<(), String> {
        let mut out = create(path)?;
        let mut dice = Dice::new(7);
        for number in 0..bytes / BLOCK {
            out.write_all(&page(&mut dice, number))
                .map_err(|error| error.to_string())?;
        }
        out.flush().map_err(|error| error.to_string())
    }

    /// As machines change: packages come, files are edited and deleted, a database is written to in place.
    fn change_image(&mut self, number: usize) -> Result<(), String> {
        let new = self.work.join("new");
        let mut dice = Dice::new(1000 + number as u64);
        let share = (self.alive.len() / 300).max(1);
        let mut script = String::new();
        let added = self.pool.take_files(share, 8 << 20, &new)?;
        script.push_str(&format!("mkdir /gen{number}\n"));
        for (at, name) in added.iter().enumerate() {
            let from = new.join(name);
            script.push_str(&format!("write {} /gen{number}/f{at}\n", from.display()));
        }
        for turn in 0..2 * share {
            let name = self.alive.swap_remove(dice.below(self.alive.len()));
            if turn % 2 == 0 {
                let old = self.work.join("old-content");
                debugfs(
                    &self.image_path(),
                    &format!("dump /usr/{name} {}\n", old.display()),
                    false,
                )?;
                let bytes = fs::read(&old).map_err(|error| error.to_string())?;
                let path = new.join(format!("edited{turn}"));
                fs::write(&path, edited(&bytes, &mut dice)).map_err(|error| error.to_string())?;
                script.push_str(&format!(
                    "rm /usr/{name}\nwrite {} /usr/{name}\n",
                    path.display()
                ));
                self.alive.push(name);
            } else {
                script.push_str(&format!("rm /usr/{name}\n"));
            }
        }
        debugfs(&self.image_path(), &script, true)?;
        self.write_to_database(number, &mut dice)?;
        fs::remove_dir_all(&new).map_err(|error| error.to_string())
    }

    /// Writes pages at random places of the database, where they lie in the image: 0.1, 1 or 3 % of them.
    fn write_to_database(&self, number: usize, dice: &mut Dice) -> Result<(), String> {
        let said = debugfs(&self.image_path(), "blocks /db\n", false)?;
        let blocks: Vec<u64> = said
            .split_whitespace()
            .filter_map(|word| word.parse().ok())
            .collect();
        if blocks.is_empty() {
            return Err("debugfs shows no blocks of the database".to_owned());
        }
        let image = File::options().write(true).open(self.image_path());
        let image = image.map_err(|error| error.to_string())?;
        let share = [1, 10, 30][number % 3];
        for _ in 0..(blocks.len() * share).div_ceil(1000) {
            let block = blocks[dice.below(blocks.len())];
            image
                .write_all_at(&page(dice, block), block * BLOCK)
                .map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    fn change_tree(&mut self, number: usize, edits: usize) -> Result<(), String> {
        let mut dice = Dice::new(2000 + number as u64);
        let added = self.pool.take_files(edits / 2, 256 << 10, &self.live)?;
        for turn in 0..edits + edits / 2 {
            let name = self.alive.swap_remove(dice.below(self.alive.len()));
            let path = self.live.join(&name);
            if turn < edits {
                let bytes = fs::read(&path).map_err(|error| error.to_string())?;
                fs::write(&path, edited(&bytes, &mut dice)).map_err(|error| error.to_string())?;
                self.alive.push(name);
            } else {
                fs::remove_file(&path).map_err(|error| error.to_string())?;
            }
        }
        self.alive.extend(added);
        Ok(())
    }

    /// All files of a release have its time, as archives of version control systems have it.
    fn release(&self, archive: &Path, number: usize) -> Result<(), String> {
        let unpack = if archive
            .extension()
            .is_some_and(|ending| ending == "whl" || ending == "zip")
        {
            "python3 -m zipfile -e $ARCHIVE $LIVE"
        } else {
            "tar -C $LIVE --strip-components=1 -xf $ARCHIVE"
        };
        let env = env(&[("LIVE", &self.live), ("ARCHIVE", archive)]);
        let time = 1_500_000_000 + number * 10_000_000;
        let touch = format!("find $LIVE -print0 | xargs -0 touch -h -d @{time}");
        let script = format!("rm -rf $LIVE && mkdir $LIVE && {unpack} && {touch}");
        quiet(&script, &env).map(drop)
    }

    fn dump(&self, bytes: u64) -> Result<(), String> {
        let mut out = create(&self.live.join("dump.sql"))?;
        let (mut dice, mut len, mut row) = (Dice::new(3), 0, 0);
        while len < bytes {
            let text = line(&mut dice, row);
            len += text.len() as u64;
            row += 1;
            out.write_all(text.as_bytes())
                .map_err(|error| error.to_string())?;
        }
        out.flush().map_err(|error| error.to_string())
    }

    /// A thousandth of the rows is inserted, as many are changed, at random places.
    fn change_dump(&self, number: usize) -> Result<(), String> {
        let path = self.live.join("dump.sql");
        let mut dice = Dice::new(3000 + number as u64);
        let old = fs::read_to_string(&path).map_err(|error| error.to_string())?;
        let mut out = create(&path)?;
        for (row, text) in (0..).zip(old.split_inclusive('\n')) {
            let turn = dice.below(1000);
            let new = if turn < 2 {
                line(&mut dice, row)
            } else {
                String::new()
            };
            let kept = if turn == 1 { "" } else { text };
            out.write_all(format!("{new}{kept}").as_bytes())
                .map_err(|error| error.to_string())?;
        }
        out.flush().map_err(|error| error.to_string())
    }

    fn small(&mut self, files: usize) -> Result<(), String> {
        let mut dice = Dice::new(4);
        for number in 0..files {
            let dir = self.live.join(format!("d{:04}", number / 500));
            if number % 500 == 0 {
                fs::create_dir(&dir).map_err(|error| error.to_string())?;
            }
            let name = format!("d{:04}/f{number:07}", number / 500);
            let text = line(&mut dice, number).repeat(1 + dice.below(8));
            fs::write(self.live.join(&name), text).map_err(|error| error.to_string())?;
            self.alive.push(name);
        }
        Ok(())
    }

    fn change_small(&self, number: usize) -> Result<(), String> {
        let mut dice = Dice::new(4000 + number as u64);
        for turn in 0..self.alive.len().div_ceil(1000) {
            let name = &self.alive[dice.below(self.alive.len())];
            fs::write(self.live.join(name), line(&mut dice, turn))
                .map_err(|error| error.to_string())?;
        }
        Ok(())
    }
}

fn page(dice: &mut Dice, number: u64) -> Vec<u8> {
    let mut page = number.to_le_bytes().to_vec();
    while page.len() < 2048 {
        let row = dice.below(1 << 20);
        page.extend(line(dice, row).as_bytes());
    }
    page.resize_with(4096, || u8::try_from(dice.below(256)).expect("a byte"));
    page
}

/// Runs commands of debugfs, which changes an image without mounting it.
fn debugfs(image: &Path, commands: &str, write: bool) -> Result<String, String> {
    let script = image.with_extension("debugfs");
    fs::write(&script, commands).map_err(|error| error.to_string())?;
    let flags = if write { "-w" } else { "" };
    let said = quiet(
        &format!("E2FSPROGS_FAKE_TIME=1700000000 debugfs {flags} -f $SCRIPT $IMAGE 2>&1"),
        &env(&[("SCRIPT", &script), ("IMAGE", image)]),
    );
    fs::remove_file(&script).map_err(|error| error.to_string())?;
    said
}

fn create(path: &Path) -> Result<BufWriter<File>, String> {
    let file = File::create(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(BufWriter::new(file))
}

/// Environment for a script.
pub fn env(pairs: &[(&str, &Path)]) -> Vec<(String, String)> {
    let pair = |(name, path): &(&str, &Path)| ((*name).to_owned(), path.display().to_string());
    pairs.iter().map(pair).collect()
}
