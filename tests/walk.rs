//! The walk while its source is rearranged: what is moved is named, everything else is found.

#![expect(
    clippy::unwrap_used,
    reason = "a test ends where something is not as it must be"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use btw_backup::tree::found::Step;
use btw_backup::tree::select::Selection;
use btw_backup::tree::walk::Walk;

/// Walks a source; `at` is called before the step after each path that is found. Returns what was found and what failed.
fn walk(
    root: &Path,
    selection: &Selection,
    mut at: impl FnMut(&str),
) -> (Vec<String>, Vec<String>) {
    let mut walk = Walk::open(root, selection).unwrap();
    let (mut found, mut problems) = (Vec::new(), Vec::new());
    while let Some(step) = walk.next_step() {
        match step {
            Step::Found(member) => {
                let path = String::from_utf8(member.path.clone()).unwrap();
                at(&path);
                found.push(path);
            }
            Step::Problem(path, _) => problems.push(String::from_utf8(path).unwrap()),
            Step::LeftOut(..) => {}
        }
    }
    (found, problems)
}

fn deep(root: &Path, below: &str, depth: usize) -> String {
    let path = (0..depth).fold(below.to_owned(), |path, level| format!("{path}/d{level}"));
    fs::create_dir_all(root.join(&path)).unwrap();
    path
}

#[test]
fn b3_a_directory_that_is_moved_far_above_loses_only_what_is_in_it() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("src");
    let path = deep(&root, "home/mallory", 40);
    fs::write(root.join(&path).join("bottom"), "b").unwrap();
    fs::create_dir_all(root.join("home/victim")).unwrap();
    for file in ["home/victim/file", "var", "home/mallory/zz"] {
        fs::write(root.join(file), "f").unwrap();
    }
    let bottom = format!("{path}/bottom");
    let (found, problems) = walk(&root, &Selection::default(), |path| {
        if path == bottom {
            // Everything between is closed by now.
            fs::rename(root.join("home/mallory/d0/d1/d2"), root.join("moved")).unwrap();
        }
    });
    for kept in ["home/victim/file", "var", "home/mallory/zz", &bottom] {
        assert!(
            found.contains(&kept.to_owned()),
            "{kept} is lost; {problems:?}"
        );
    }
    assert!(
        problems
            .iter()
            .all(|path| path.starts_with("home/mallory/d0/d1")),
        "{problems:?}"
    );
}

#[test]
fn directories_that_are_searched_come_before_what_is_in_them_with_few_descriptors() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("src");
    let path = deep(&root, "cache", 300);
    fs::write(root.join(&path).join("a.conf"), "c").unwrap();
    fs::write(root.join("cache/b"), "b").unwrap();
    let selection = Selection {
        exclude: vec!["cache".into()],
        include: vec!["*.conf".into()],
        ..Selection::default()
    };
    let descriptors = || fs::read_dir("/proc/self/fd").unwrap().count();
    let (before, mut most) = (descriptors(), 0);
    let (found, problems) = walk(&root, &selection, |_| most = most.max(descriptors()));
    assert_eq!((found.len(), problems.len()), (303, 0));
    let mut sorted = found.clone();
    sorted.sort_by(|a, b| btw_backup::catalog::member::path_order(a.as_bytes(), b.as_bytes()));
    assert_eq!(found, sorted, "in path order");
    assert_eq!(found.iter().collect::<BTreeSet<_>>().len(), found.len());
    assert!(most < before + 40, "{most} descriptors");
}
