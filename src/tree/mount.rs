//! File systems without data of their own: their content is the kernel's.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs;

/// `statfs` types, from Linux `magic.h`.
const PSEUDO: [u64; 18] = [
    0x9fa0,      // proc
    0x6265_6572, // sysfs
    0x1373,      // devfs
    0x1cd1,      // devpts
    0x6462_6720, // debugfs
    0x7472_6163, // tracefs
    0x0027_e0eb, // cgroup
    0x6367_7270, // cgroup2
    0x6265_6570, // configfs
    0x7363_6673, // securityfs
    0xf97c_ff8c, // selinuxfs
    0x6573_5543, // fusectl
    0x6165_676c, // pstore
    0xcafe_4a11, // bpf
    0xde5e_81e4, // efivarfs
    0x1980_0202, // mqueue
    0x4249_4e4d, // binfmt_misc
    0x6e73_6673, // nsfs
];

/// devtmpfs looks like tmpfs to `statfs`: only the list of mounts tells them apart.
const DEVICES: &str = "devtmpfs";

/// What is known of mounts.
#[derive(Default)]
pub struct Mounts {
    devices: HashSet<u64>,
}

impl Mounts {
    /// Reads the list of mounts; without it only `statfs` tells.
    pub fn read() -> Self {
        let text = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
        let lines = text.split(|byte| *byte == b'\n');
        let devices = lines.filter_map(|line| devtmpfs(std::str::from_utf8(line).ok()?));
        Self {
            devices: devices.collect(),
        }
    }

    /// Whether a directory on this device is on a pseudo file system.
    pub fn is_pseudo(&self, dir: impl AsFd, device: u64) -> bool {
        // The field's type differs between architectures; the numbers fit in 32 bits.
        self.devices.contains(&device)
            || fs::fstatfs(dir).is_ok_and(|stat| {
                PSEUDO.contains(&(u64::from_ne_bytes(stat.f_type.to_ne_bytes()) & 0xffff_ffff))
            })
    }
}

/// The paths below a directory, given by its real path, at which something is mounted.
pub fn points_below(dir: &Path) -> Vec<Vec<u8>> {
    let text = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
    let points = text
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
    let below = points.filter_map(|point| {
        let point = unescaped(point);
        let rest = Path::new(OsStr::from_bytes(&point))
            .strip_prefix(dir)
            .ok()?;
        Some(rest.as_os_str().as_bytes().to_vec()).filter(|rest| !rest.is_empty())
    });
    let mut below: Vec<Vec<u8>> = below.collect();
    below.sort_unstable();
    below.dedup();
    below
}

/// A path as in mountinfo: blanks and backslashes stand there as three octal digits (proc(5)).
fn unescaped(text: &[u8]) -> Vec<u8> {
    let (mut out, mut rest) = (Vec::new(), text);
    while let [first, after @ ..] = rest {
        let octal = after.get(..3).filter(|_| *first == b'\\');
        let code = octal.and_then(|digits| std::str::from_utf8(digits).ok());
        let byte = code.and_then(|digits| u8::from_str_radix(digits, 8).ok());
        out.push(byte.unwrap_or(*first));
        rest = if byte.is_some() { &after[3..] } else { after };
    }
    out
}

/// The device of a line of mountinfo about devtmpfs: `ID PARENT MAJOR:MINOR ROOT POINT OPTIONS ... - TYPE SOURCE OPTIONS`.
fn devtmpfs(line: &str) -> Option<u64> {
    let (mount, system) = line.split_once(" - ")?;
    let (major, minor) = mount.split(' ').nth(2)?.split_once(':')?;
    let is_devices = system.split(' ').next() == Some(DEVICES);
    is_devices.then_some(fs::makedev(major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::{devtmpfs, unescaped};

    #[test]
    fn blanks_in_mount_points_are_understood() {
        assert_eq!(unescaped(b"/a\\040b\\134c\\9"), b"/a b\\c\\9");
    }

    #[test]
    fn b10_devices_are_known_by_the_list_of_mounts() {
        let line = "24 1 0:6 / /dev rw,nosuid shared:2 - devtmpfs udev rw,size=1k";
        assert_eq!(devtmpfs(line), Some(rustix::fs::makedev(0, 6)));
        assert_eq!(devtmpfs(&line.replace("devtmpfs", "tmpfs")), None);
        assert_eq!(devtmpfs(""), None);
    }
}
