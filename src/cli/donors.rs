//! The copies that a repair may take from.

use super::exit::Exit;
use super::output::Output;
use super::remotes::Remotes;
use crate::error::Error;
use crate::ops::repair::Donor;
use crate::store::Store;

/// The copies of a store; one that cannot be asked is a warning.
pub fn donors(
    remotes: &Remotes,
    (remote, dst): (Option<&String>, &str),
) -> Result<(Vec<Donor>, Exit), Error> {
    let names: Vec<String> = match remote {
        Some(name) => {
            remotes.config(name)?;
            vec![name.clone()]
        }
        None => remotes.names().map(str::to_owned).collect(),
    };
    let (mut donors, mut exit) = (Vec::new(), Exit::Done);
    for name in names {
        match remotes.mirror(&name, dst).and_then(Donor::of) {
            Ok(donor) => donors.extend(donor),
            Err(error) => {
                Output::error_of(&name, &error);
                exit = exit.or(Exit::Warnings);
            }
        }
    }
    Ok((donors, exit))
}

/// Copies of other stores have no part in it.
pub fn refuse_others(store: &Store, donors: &mut Vec<Donor>) -> Result<Exit, Error> {
    let mut exit = Exit::Done;
    let mut own = Vec::new();
    for donor in donors.drain(..) {
        if donor.is_of(store)? {
            own.push(donor);
            continue;
        }
        let whose = donor.state.as_ref().map_or_else(String::new, |state| {
            format!(
                ", that of {} on {}",
                state.source_path().display(),
                state.host
            )
        });
        Output::warning(&format!(
            "{} holds another store{whose}: nothing is taken from there or written there",
            donor.mirror.name()
        ));
        exit = Exit::Warnings;
    }
    *donors = own;
    Ok(exit)
}
