//! Whose a store is, and whom root trusts not to have changed it or the configuration.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::unistd::{Group, User};
use rustix::fs::FileType;

use super::Context;
use crate::config::workdir::Workdir;
use crate::error::Error;
use crate::store::disk::LocalDisk;

/// Numeric user and group.
pub type Owner = (u32, u32);

const ROOT: u32 = 0;
const STICKY: u32 = 0o1000;
const WRITABLE_BY_OTHERS: u32 = 0o022;

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Reads `USER|UID[:GROUP|:GID]`. Without a group it is the user's own.
pub fn parse(text: &str) -> Result<Owner, Error> {
    let (user, group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (text, None),
    };
    let unknown = |what: &str, name: &str| {
        Error::Usage(format!(
            "-u {text}: there is no {what} '{name}' here; numbers are understood too"
        ))
    };
    let by_name = User::from_name(user).ok().flatten();
    let uid = match &by_name {
        Some(user) => user.uid.as_raw(),
        None => id(user).ok_or_else(|| unknown("user", user))?,
    };
    let gid = match group {
        Some(group) => match Group::from_name(group).ok().flatten() {
            Some(group) => group.gid.as_raw(),
            None => id(group).ok_or_else(|| unknown("group", group))?,
        },
        None => by_name
            .or_else(|| User::from_uid(uid.into()).ok().flatten())
            .map(|user| user.gid.as_raw())
            .ok_or_else(|| {
                Error::Usage(format!(
                    "-u {text}: user {uid} has no entry here; name a group too, as in {uid}:{uid}"
                ))
            })?,
    };
    Ok((uid, gid))
}

/// The highest number means "unchanged" to the kernel.
fn id(text: &str) -> Option<u32> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|id| is_number && *id != u32::MAX)
}

/// Whose a store is.
pub struct Ownership {
    /// The owner that it is to have: the one that is asked for, else the one that it was given to before.
    pub wanted: Option<Owner>,
    /// The one that it was given to before.
    recorded: Option<Owner>,
}

/// Whose the store `dst` is, and is to be. What this source's own working directory remembers counts before others.
pub fn of_store(
    context: &Context,
    work: Option<&Workdir>,
    asked: Option<&str>,
    dst: &str,
) -> Result<Ownership, Error> {
    let own = work.map(|work| work.seen(dst)).transpose()?.flatten();
    let recorded = match own {
        Some(seen) => seen.owner,
        None => Workdir::recorded_owner(&context.config_dir, dst)?,
    };
    let owner = asked.map(parse).transpose()?.or(recorded);
    let own = (
        rustix::process::geteuid().as_raw(),
        rustix::process::getegid().as_raw(),
    );
    match owner {
        Some(owner) if owner != own && !is_root() => Err(Error::Refused(format!(
            "only root can make a store that belongs to {}:{}",
            owner.0, owner.1
        ))),
        wanted => Ok(Ownership { wanted, recorded }),
    }
}

/// Root uses only a configuration that nobody else could have written.
pub fn refuse_foreign_config(context: &Context) -> Result<(), Error> {
    let names = ["config.toml", "config.py"];
    let files = names.iter().map(|name| context.config_dir.join(name));
    files
        .chain([context.config_dir.clone()])
        .try_for_each(|path| refuse_writable(&path, [None, None]))
}

/// A source's working directory, if it has one here and root may trust it.
pub fn trusted_workdir(context: &Context, source: &Path) -> Result<Option<Workdir>, Error> {
    let work = Workdir::find(&context.config_dir, source)?;
    work.iter().try_for_each(refuse_foreign_workdir)?;
    Ok(work)
}

/// The same for a source's working directory.
pub fn refuse_foreign_workdir(work: &Workdir) -> Result<(), Error> {
    let files = work.files();
    files
        .iter()
        .try_for_each(|path| refuse_writable(path, [None, None]))
}

/// Root uses only a store that nobody but root and its owner can write to. In the directories above it others may add
/// names, if they cannot take ours away.
pub fn refuse_foreign_store(store: &Path, ownership: &Ownership) -> Result<(), Error> {
    let owners = [ownership.wanted, ownership.recorded];
    match store.ancestors().find(|dir| dir.exists()) {
        Some(dir) if dir != store => refuse_replaceable(dir, owners, 1, true),
        _ => refuse_replaceable(store, owners, 0, true),
    }
}

/// The same for the store's directory once it is open, as somebody may have made it in between; and for its directories and
/// its states, from which everything else is found and checked.
pub fn refuse_foreign_disk(
    disk: &LocalDisk,
    store: &Path,
    ownership: &Ownership,
) -> Result<(), Error> {
    if !is_root() {
        return Ok(());
    }
    let users = [ownership.wanted, ownership.recorded]
        .into_iter()
        .flatten()
        .map(|owner| owner.0);
    let users: Vec<u32> = users.chain([ROOT]).collect();
    let parts = disk
        .parts()
        .map_err(|error| Error::file("look at", store, error))?;
    for (name, meta) in parts {
        let trusted = users.contains(&meta.uid);
        // A link says it can be written to by all; that it is none of ours is seen when it is opened.
        let writable = meta.mode & WRITABLE_BY_OTHERS != 0 && meta.kind != FileType::Symlink;
        if trusted && !writable {
            continue;
        }
        return Err(refusal(&store.join(name), meta.uid, trusted, true));
    }
    Ok(())
}

/// Root makes trees again only where nobody but root can rename what it made.
pub fn refuse_shared(dir: &Path) -> Result<(), Error> {
    refuse_replaceable(dir, [None, None], 1, false)
}

fn refusal(path: &Path, uid: u32, trusted: bool, is_store: bool) -> Error {
    let shown = path.display();
    Error::Refused(match (trusted, is_store) {
        (true, _) => format!(
            "{shown} can be written to by others, and root would trust it: chmod go-w {shown}"
        ),
        (false, false) => {
            format!("{shown} belongs to user {uid}, and root would trust it: chown root {shown}")
        }
        (false, true) => {
            format!(
                "{shown} belongs to user {uid}, and root would trust it: chown it, or pass -u {uid} if the store is that user's"
            )
        }
    })
}

/// Refuses what others than root and the owner can write to, or replace by writing to a directory around it.
fn refuse_writable(path: &Path, owners: [Option<Owner>; 2]) -> Result<(), Error> {
    refuse_replaceable(path, owners, 0, false)
}

/// The same for a path of which only directories from this depth on upwards exist.
fn refuse_replaceable(
    path: &Path,
    owners: [Option<Owner>; 2],
    depth: usize,
    is_store: bool,
) -> Result<(), Error> {
    if !is_root() {
        return Ok(());
    }
    let Ok(real) = path.canonicalize() else {
        return Ok(());
    };
    for (depth, dir) in (depth..).zip(real.ancestors()) {
        let metadata =
            std::fs::metadata(dir).map_err(|error| Error::file("look at", dir, error))?;
        let mut users = owners.iter().flatten().map(|owner| owner.0).chain([ROOT]);
        let trusted = users.any(|user| user == metadata.uid());
        // In a sticky directory others can add names, but not take ours away.
        let shared = depth > 0 && metadata.is_dir() && metadata.mode() & STICKY != 0;
        let writable = metadata.mode() & WRITABLE_BY_OTHERS != 0 && !shared;
        if trusted && !writable {
            continue;
        }
        return Err(refusal(dir, metadata.uid(), trusted, is_store));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn owners_are_names_or_numbers() {
        assert_eq!(parse("root").unwrap(), (0, 0));
        assert_eq!(parse("0").unwrap(), (0, 0));
        assert_eq!(parse("root:").unwrap(), (0, 0));
        assert_eq!(parse("root:7").unwrap(), (0, 7));
        assert_eq!(
            parse("4000000000:4294967294").unwrap(),
            (4_000_000_000, 4_294_967_294)
        );
        for bad in [
            "",
            ":",
            "nobody-here",
            "root:nothing-here",
            "4294967295:0",
            "-1",
            "0:+1",
            "4000000000",
        ] {
            assert!(parse(bad).unwrap_err().to_string().contains(bad), "{bad}");
        }
    }
}
