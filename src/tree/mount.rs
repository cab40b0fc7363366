//! File systems without data of their own: their content is the kernel's.

use std::collections::HashSet;
use std::os::fd::AsFd;

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

/// The device of a line of mountinfo about devtmpfs: `ID PARENT MAJOR:MINOR ROOT POINT OPTIONS ... - TYPE SOURCE OPTIONS`.
fn devtmpfs(line: &str) -> Option<u64> {
    let (mount, system) = line.split_once(" - ")?;
    let (major, minor) = mount.split(' ').nth(2)?.split_once(':')?;
    let is_devices = system.split(' ').next() == Some(DEVICES);
    is_devices.then_some(fs::makedev(major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::devtmpfs;

    #[test]
    fn b10_devices_are_known_by_the_list_of_mounts() {
        let line = "24 1 0:6 / /dev rw,nosuid shared:2 - devtmpfs udev rw,size=1k";
        assert_eq!(devtmpfs(line), Some(rustix::fs::makedev(0, 6)));
        assert_eq!(devtmpfs(&line.replace("devtmpfs", "tmpfs")), None);
        assert_eq!(devtmpfs(""), None);
    }
}
