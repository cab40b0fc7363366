//! A version against the live source: what differs.

use std::path::Path;

use super::live::{Difference, Live, Seen};
use crate::catalog::{Kind, Version};
use crate::error::Error;
use crate::report::Monitor;
use crate::store::Store;
use crate::store::heads::Heads;
use crate::tree::select::Selection;

/// Takes differences in path order.
pub type See<'a> = &'a mut dyn FnMut(&[u8], &Difference) -> Result<(), Error>;

/// Calls `see` for every path at which the source is not as the version says.
pub fn compare(
    store: &Store,
    version: &Version,
    root: &Path,
    selection: &Selection,
    see: See<'_>,
    monitor: &dyn Monitor,
) -> Result<(), Error> {
    monitor.step("comparing", Some(version.size_bytes));
    let live = Live {
        root,
        selection,
        owners: true,
    };
    let mut heads = Heads::open(store, &version.catalog);
    let mut tell = |seen: Seen<'_>| match &seen.difference {
        None => Ok(()),
        // What could not be read then and cannot be now is no news.
        Some(Difference::Unread(_))
            if seen
                .member
                .is_some_and(|member| member.kind == Kind::Absent) =>
        {
            Ok(())
        }
        Some(difference) => see(seen.path, difference),
    };
    live.compare(&mut || heads.next_member(), &mut tell, monitor)
}
