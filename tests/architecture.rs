//! Keeps the layers: imports point down only, effects happen where they belong, only `cli` prints.

#![expect(
    clippy::unwrap_used,
    reason = "a test ends where something is not as it must be"
)]

use std::fs;
use std::path::{Path, PathBuf};

/// Modules from the bottom up; a module may use those of lower layers and, within a layer, those named before it.
const LAYERS: [&[&str]; 5] = [
    &["digest", "time", "report", "error"],
    &["catalog", "format", "delta", "plan"],
    &["tree", "process", "dump", "store", "remote", "notify"],
    &["ops"],
    &["config", "cli"],
];

fn sources() -> Vec<(PathBuf, String)> {
    let mut files = Vec::new();
    let mut pending = vec![PathBuf::from("src")];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let code = text.split("#[cfg(test)]").next().unwrap().to_owned();
                files.push((path, code));
            }
        }
    }
    assert!(files.len() > 30);
    files
}

fn module(path: &Path) -> String {
    let first = path
        .strip_prefix("src")
        .unwrap()
        .components()
        .next()
        .unwrap();
    first
        .as_os_str()
        .to_str()
        .unwrap()
        .trim_end_matches(".rs")
        .to_owned()
}

fn rank(module: &str) -> Option<(usize, usize)> {
    LAYERS.iter().enumerate().find_map(|(layer, names)| {
        names
            .iter()
            .position(|name| *name == module)
            .map(|place| (layer, place))
    })
}

#[test]
fn imports_point_down() {
    let mut checked = 0;
    for (path, code) in sources() {
        let own = module(&path);
        let Some(own_rank) = rank(&own) else {
            assert!(
                ["lib", "main"].contains(&own.as_str()),
                "{} is in no layer",
                path.display()
            );
            continue;
        };
        for used in code.split("crate::").skip(1) {
            let name: String = used
                .chars()
                .take_while(|c| c.is_ascii_lowercase() || *c == '_')
                .collect();
            if name == own || name.is_empty() {
                continue;
            }
            let used_rank = rank(&name)
                .unwrap_or_else(|| panic!("{}: crate::{name} is in no layer", path.display()));
            // `error` names the errors of `format`, which know nothing of it.
            let known = own == "error" && name == "format";
            assert!(
                used_rank < own_rank || known,
                "{} uses crate::{name}, which is above it",
                path.display()
            );
            checked += 1;
        }
        assert!(
            !code.contains("use crate::*") && !code.contains("use super::*"),
            "{}: glob import",
            path.display()
        );
    }
    assert!(checked > 100, "only {checked} imports seen");
}

#[test]
fn effects_happen_where_they_belong() {
    let may = |path: &Path, places: &[&str]| {
        places
            .iter()
            .any(|place| path.starts_with(Path::new("src").join(place)))
    };
    for (path, code) in sources() {
        let has = |words: &[&str]| {
            words
                .iter()
                .find(|word| code.contains(**word))
                .map(|word| (*word).to_owned())
        };
        let refuse = |found: Option<String>, why: &str| {
            assert!(found.is_none(), "{}: {:?}: {why}", path.display(), found);
        };
        if !may(&path, &["cli"]) {
            refuse(
                has(&["println!", "print!(", "stdout()", "stderr()", "std::env::"]),
                "only cli speaks to the process",
            );
        }
        if may(
            &path,
            &[
                "catalog",
                "format",
                "delta",
                "plan",
                "digest.rs",
                "time",
                "report.rs",
            ],
        ) {
            refuse(
                has(&[
                    "std::fs",
                    "rustix",
                    "std::process",
                    "std::thread",
                    "rayon",
                    "Timestamp::now",
                ]),
                "pure layers have no effects",
            );
        }
        if !may(
            &path,
            &[
                "store/disk.rs",
                "remote/sftp",
                "tree",
                "config",
                "ops/restore",
                "ops/import",
                "cli/export.rs",
            ],
        ) {
            refuse(
                has(&[
                    "rename(",
                    "renameat",
                    "fsync",
                    "sync_all",
                    "sync_data",
                    "unlinkat",
                    "remove_file",
                ]),
                "only store/disk.rs changes the store",
            );
        }
        if !may(&path, &["cli"]) {
            refuse(
                has(&["Timestamp::now", "Zoned::now"]),
                "the clock is read once, at the edge",
            );
        }
    }
}

#[test]
fn files_and_functions_stay_small() {
    for (path, code) in sources() {
        let lines: Vec<&str> = code.lines().collect();
        assert!(
            lines.len() <= 400,
            "{} has {} lines",
            path.display(),
            lines.len()
        );
        let mut begun: Option<(usize, usize)> = None;
        for (number, line) in lines.iter().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let starts = line
                .trim_start()
                .trim_start_matches("pub ")
                .trim_start_matches("pub(crate) ")
                .trim_start_matches("pub(super) ")
                .starts_with("fn ");
            if starts && begun.is_none() && line.ends_with('{') {
                begun = Some((number, indent));
            } else if let Some((start, at)) = begun
                && indent == at
                && line.trim_start().starts_with('}')
            {
                assert!(
                    number - start <= 70,
                    "{}:{} is {} lines long",
                    path.display(),
                    start + 1,
                    number - start
                );
                begun = None;
            }
        }
    }
}

#[test]
fn every_exit_code_is_in_readme_and_help() {
    let readme = fs::read_to_string("README.md").unwrap();
    for code in ["| 0 |", "| 1 |", "| 2 |", "| 3 |", "| 4 |", "| 5 |"] {
        assert!(readme.contains(code), "README names no exit code {code}");
    }
    let help = fs::read_to_string("src/cli/args.rs").unwrap();
    assert!(help.contains("Exit codes: 0 done"));
}
