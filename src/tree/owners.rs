//! Who owns what is restored.

use std::collections::HashMap;

use nix::unistd::{Group, User};

use crate::catalog::Member;

/// Whom restored members belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OwnerRule {
    /// The user and group of the recorded names, if this machine has them; else of the recorded numbers.
    #[default]
    ByName,
    /// The recorded numbers.
    ByNumber,
    /// Whoever restores.
    Nobody,
}

/// Looks up names once each.
#[derive(Default)]
pub struct LocalOwners {
    users: HashMap<Vec<u8>, Option<u32>>,
    groups: HashMap<Vec<u8>, Option<u32>>,
}

impl LocalOwners {
    /// Replaces a member's numbers by those that its names have here. Names that cannot be looked up change nothing.
    pub fn apply(&mut self, member: &mut Member) {
        let user = |name: &str| Some(User::from_name(name).ok()??.uid.as_raw());
        let group = |name: &str| Some(Group::from_name(name).ok()??.gid.as_raw());
        if let Some(uid) = known(&mut self.users, &member.user, user) {
            member.uid = uid;
        }
        if let Some(gid) = known(&mut self.groups, &member.group, group) {
            member.gid = gid;
        }
    }
}

fn known(
    names: &mut HashMap<Vec<u8>, Option<u32>>,
    name: &[u8],
    look_up: impl Fn(&str) -> Option<u32>,
) -> Option<u32> {
    if name.is_empty() {
        return None;
    }
    if let Some(id) = names.get(name) {
        return *id;
    }
    let id = std::str::from_utf8(name).ok().and_then(look_up);
    names.insert(name.to_vec(), id);
    id
}
