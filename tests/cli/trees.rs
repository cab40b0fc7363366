//! Sources that change as real ones do.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;

use filetime::{FileTime, set_file_mtime, set_symlink_file_times};

/// A generator that gives the same numbers in every run.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }

    /// Lines that look like source code.
    pub fn code(&mut self, lines: u64) -> String {
        let words = [
            "let", "value", "result", "self", "return", "match", "iter", "name", "path", "if",
            "else", "map", "(x)", "{", "}", "=>",
        ];
        let mut text = String::new();
        for _ in 0..lines {
            for _ in 0..2 + self.below(8) {
                text.push_str(words[usize::try_from(self.below(16)).unwrap()]);
                text.push(if self.below(9) == 0 { '_' } else { ' ' });
            }
            text.push_str(&format!("{}\n", self.below(1000)));
        }
        text
    }
}

const CONSTANT: i64 = 1_700_000_000;

/// The n-th release of a package: files edited, added, removed and renamed; half of them with constant times.
pub fn release(root: &Path, n: u64) {
    for dir in 0..12 {
        fs::create_dir_all(root.join(format!("pkg{dir}/deep/er"))).unwrap();
    }
    for file in 0..240_u64 {
        if (file * 7 + n).is_multiple_of(31) {
            continue;
        }
        let mut random = Random(file);
        let mut text = random.code(20 + file % 90);
        for edit in 0..n {
            let mut change = Random(file * 1000 + edit);
            if change.below(5) == 0 {
                let at = text.len() * usize::try_from(change.below(100)).unwrap() / 100;
                let at = text[at..]
                    .find('\n')
                    .map_or(text.len(), |next| at + next + 1);
                text.insert_str(at, &change.code(3));
            }
        }
        let name = if file % 20 == n % 20 {
            format!("renamed{file}.rs")
        } else {
            format!("file{file}.rs")
        };
        let path = root.join(format!("pkg{}/deep/{name}", file % 12));
        fs::write(&path, text).unwrap();
        if file % 2 == 0 {
            set_file_mtime(&path, FileTime::from_unix_time(CONSTANT, 0)).unwrap();
        }
    }
}

/// One of everything that this version knows.
pub fn zoo(root: &Path) {
    fs::create_dir_all(root.join("dir/empty")).unwrap();
    let write = |name: &[u8], content: &[u8]| {
        fs::write(root.join(OsStr::from_bytes(name)), content).unwrap();
    };
    write(b"plain", b"content");
    write(b"empty-file", b"");
    write(b"-leading dash ", b"1");
    write(b"new\nline", b"2");
    write(b"not-utf8-\xff\xfe", b"3");
    write("ümläut-☃".as_bytes(), b"4");
    write(&[b'n'; 255], b"5");
    write(b"dir/exactly-one-block", &vec![7; 65536]);
    write(b"dir/zero-block", &vec![0; 65536]);
    write(b"dir/one-more", &vec![8; 65537]);
    write(b"dir/512", &[9; 512]);
    let every: Vec<u8> = (1..=255_u8).filter(|byte| *byte != b'/').collect();
    for (index, part) in every.chunks(100).enumerate() {
        write(
            &[part, index.to_string().as_bytes()].concat(),
            b"every byte",
        );
    }
    let deep = root.join(["0123456789abcdefghij"; 12].join("/"));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("deep"), "deep").unwrap();
    fs::hard_link(root.join("plain"), root.join("dir/linked")).unwrap();
    fs::hard_link(root.join("plain"), root.join("zz-linked")).unwrap();
    symlink("plain", root.join("link")).unwrap();
    symlink("nowhere/at all", root.join("dangling")).unwrap();
    symlink(OsStr::from_bytes(&[b't'; 4095]), root.join("long-target")).unwrap();
    symlink(OsStr::from_bytes(b"../\xff"), root.join("binary-target")).unwrap();
    set_symlink_file_times(
        root.join("link"),
        FileTime::from_unix_time(5, 6),
        FileTime::from_unix_time(1_234_567_890, 123_456_789),
    )
    .unwrap();
    sparse(&root.join("sparse"), 100 << 20);
    let mode = |name: &str, mode| {
        fs::set_permissions(root.join(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    mode("plain", 0o4711);
    mode("dir/empty", 0o2555);
    mode("empty-file", 0o000);
    let time = |name: &str, seconds, nanoseconds| {
        set_file_mtime(
            root.join(name),
            FileTime::from_unix_time(seconds, nanoseconds),
        )
        .unwrap();
    };
    time("plain", 1_600_000_000, 987_654_321);
    time("dir/512", 0, 0);
    time("dir/one-more", -1_000_000, 500_000_000);
    time("dir/exactly-one-block", 4_102_444_800, 1);
    time("dir", 1_500_000_000, 7);
}

/// A file of this length with data at its beginning, in its middle and at its end.
pub fn sparse(path: &Path, len: u64) {
    let file = File::create(path).unwrap();
    file.set_len(len).unwrap();
    file.write_all_at(&[1; 1000], 0).unwrap();
    file.write_all_at(&vec![2; 100_000], len / 2).unwrap();
    file.write_all_at(&[3; 10], len - 10).unwrap();
}

/// A disk image: noise, zeros and text, with scattered changes for each generation.
pub fn image(path: &Path, bytes: usize, generation: u64) {
    let mut random = Random(42);
    let mut content = vec![0; bytes];
    for block in content.chunks_mut(16 << 10).step_by(3) {
        for byte in block {
            *byte = u8::try_from(random.below(256)).unwrap();
        }
    }
    for change in 0..generation * 20 {
        let mut random = Random(1000 + change);
        let at = usize::try_from(random.below(bytes as u64 - 5000)).unwrap();
        content[at..at + 4096].fill(u8::try_from(random.below(256)).unwrap());
    }
    File::create(path).unwrap().write_all(&content).unwrap();
}
