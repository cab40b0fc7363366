//! File systems without data of their own: their content is the kernel's.

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

/// Whether a directory is on a pseudo file system.
pub fn is_pseudo(dir: impl AsFd) -> bool {
    // The field's type differs between architectures; the numbers fit in 32 bits.
    fs::fstatfs(dir).is_ok_and(|stat| {
        PSEUDO.contains(&(u64::from_ne_bytes(stat.f_type.to_ne_bytes()) & 0xffff_ffff))
    })
}
