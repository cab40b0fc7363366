//! `repair`: every file of a store and of its copy, damaged and gone.

use std::fs;
use std::path::{Path, PathBuf};

use crate::sync::Site;
use crate::tools::{assert_same_tree, tool};
use crate::trees;

fn files(dir: &Path) -> Vec<PathBuf> {
    let listed = tool(
        "find",
        &[dir.to_str().unwrap(), "-type", "f", "-size", "+0"],
    );
    let mut files: Vec<PathBuf> = listed.lines().map(PathBuf::from).collect();
    files.sort();
    files
}

fn spoil(file: &Path) {
    let mut bytes = fs::read(file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    fs::write(file, bytes).unwrap();
}

fn site(store_type: &str) -> (Site, PathBuf) {
    let site = Site::new("");
    let src = site.home.path("src");
    for n in 1..=3 {
        trees::release(&src, n);
        if n == 1 {
            site.run(&[
                "fs-init",
                "--type",
                store_type,
                src.to_str().unwrap(),
                "home",
            ])
            .ends(0);
        }
        site.run(&["fs", src.to_str().unwrap(), "home"]).ends(0);
    }
    (site, src)
}

/// The files that verification would miss: all but what a machine has for itself.
fn counts(file: &Path) -> bool {
    let path = file.to_str().unwrap();
    ![
        "/cache/",
        "/damaged/",
        "/staging/",
        "log.txt",
        "README.txt",
        "/lock",
        "/readers",
    ]
    .iter()
    .any(|word| path.contains(word))
}

#[test]
fn every_file_here_comes_back_from_there() {
    let (mut mended, mut all) = (0, 0);
    for store_type in ["rdiff", "tar"] {
        let (site, _) = site(store_type);
        let store = site.home.store("home");
        for file in files(&store).into_iter().filter(|file| counts(file)) {
            let good = fs::read(&file).unwrap();
            for is_gone in [false, true] {
                if is_gone && file.parent().unwrap().ends_with("state") {
                    // Then the store is what it was before.
                    continue;
                }
                all += 1;
                if is_gone {
                    fs::remove_file(&file).unwrap();
                } else {
                    spoil(&file);
                }
                let bad = fs::read(&file).ok();
                let would = site.run(&["repair", "--dry-run", "home"]);
                assert!(
                    would
                        .out
                        .contains("would be taken from s3://backups/here/home"),
                    "{file:?}: {}{}",
                    would.out,
                    would.err
                );
                assert_eq!(fs::read(&file).ok(), bad, "a dry run changed something");
                site.run(&["repair", "home"]).ends(0);
                assert_eq!(fs::read(&file).unwrap(), good, "{file:?}");
                site.run(&["verify", "--deep", "home"]).ends(0);
                mended += 1;
                // What was damaged is still there.
                let aside = store.join("damaged");
                let kept = files(&aside)
                    .iter()
                    .any(|kept| bad.as_ref() == fs::read(kept).ok().as_ref());
                assert!(bad.is_none() || kept, "{file:?}");
                fs::remove_dir_all(&aside).unwrap();
            }
        }
    }
    println!("made good here: {mended} of {all}");
    assert!(all > 20);
}

#[test]
fn every_file_there_comes_back_from_here() {
    let (mut mended, mut all) = (0, 0);
    for store_type in ["rdiff", "tar"] {
        let (site, src) = site(store_type);
        let copy = site.server.bucket().join("here/home");
        // Only the newest state's: older ones are not what the copy is for.
        site.run(&["prune", "--now", "--remote", "offsite", "home"])
            .ends(0);
        for file in files(&copy).into_iter().filter(|file| counts(file)) {
            let good = fs::read(&file).unwrap();
            for is_gone in [false, true] {
                all += 1;
                let is_state = file.parent().unwrap().ends_with("state");
                if is_gone && is_state {
                    fs::remove_file(&file).unwrap();
                    site.run(&["sync", "home"]).ends(0);
                } else {
                    if is_gone {
                        fs::remove_file(&file).unwrap();
                    } else {
                        spoil(&file);
                    }
                    site.elsewhere(&["verify", "s3://backups/here/home"])
                        .ends(5);
                    site.run(&["repair", "home"]).ends(0);
                }
                assert_eq!(fs::read(&file).unwrap(), good, "{file:?}");
                site.elsewhere(&["verify", "--deep", "s3://backups/here/home"])
                    .ends(0);
                mended += 1;
            }
        }
        assert_same_tree(&src, &site.restored("latest", "home"));
    }
    println!("made good there: {mended} of {all}");
}

#[test]
fn a_store_of_archives_that_is_gone_is_brought_back() {
    let (site, src) = site("tar");
    let store = site.home.store("home");
    let before = files(&store)
        .into_iter()
        .filter(|file| counts(file))
        .count();
    fs::remove_dir_all(&store).unwrap();
    site.run(&["repair", "home"]).ends(0);
    let after = files(&store)
        .into_iter()
        .filter(|file| counts(file))
        .count();
    assert_eq!(after, before);
    site.run(&["verify", "--deep", "home"]).ends(0);
    assert_same_tree(&src, &site.home.restored("latest", "home"));
}

#[test]
fn a_store_that_is_gone_is_brought_back() {
    let (site, src) = site("rdiff");
    let store = site.home.store("home");
    let before = site.home.path("before");
    tool(
        "cp",
        &["-a", store.to_str().unwrap(), before.to_str().unwrap()],
    );
    fs::remove_dir_all(&store).unwrap();
    site.run(&["repair", "--dry-run", "home"]).ends(0);
    assert!(!store.exists());
    let said = site.run(&["repair", "home"]).ends(0);
    assert!(
        said.out
            .contains("brought back from s3://backups/here/home"),
        "{}",
        said.out
    );
    for dir in ["state", "objects", "catalogs", "manifests", "deltas"] {
        tool(
            "diff",
            &[
                "-r",
                before.join(dir).to_str().unwrap(),
                store.join(dir).to_str().unwrap(),
            ],
        );
    }
    // It goes on.
    trees::release(&src, 4);
    site.run(&["fs", src.to_str().unwrap(), "home"]).ends(0);
    assert_same_tree(&src, &site.restored("latest", "home"));
    site.run(&["verify", "--deep", "home"]).ends(0);
    site.run(&["repair", "nothing"])
        .ends(1)
        .complains("no remote has a copy of it");
}

#[test]
fn both_sides_damaged_and_what_nobody_has() {
    let (site, src) = site("rdiff");
    let (store, copy) = (
        site.home.store("home"),
        site.server.bucket().join("here/home"),
    );
    // One here, another one there.
    let (here, there) = (store.join("deltas"), copy.join("catalogs"));
    spoil(&files(&here)[0]);
    spoil(&files(&there)[0]);
    site.run(&["repair", "home"]).ends(0);
    site.run(&["verify", "--deep", "home"]).ends(0);
    site.elsewhere(&["verify", "--deep", "s3://backups/here/home"])
        .ends(0);
    // The same on both sides: a delta is lost, and said to be.
    let delta = &files(&here)[0];
    let same = copy.join("deltas").join(delta.file_name().unwrap());
    let (good, bad) = (fs::read(delta).unwrap(), {
        spoil(delta);
        spoil(&same);
        fs::read(delta).unwrap()
    });
    let said = site.run(&["repair", "home"]).ends(5);
    assert!(
        said.out.contains("lost, unless another copy has it"),
        "{}",
        said.out
    );
    assert!(
        said.err.contains("here there is no good one"),
        "{}",
        said.err
    );
    assert_eq!(fs::read(delta).unwrap(), bad, "the only copy was touched");
    assert_same_tree(&src, &site.restored("latest", "home"));
    fs::write(delta, &good).unwrap();
    fs::write(&same, good).unwrap();
    // What the newest version lacks on both sides is in the source.
    let largest = |dir: &Path| {
        let mut all = files(dir);
        all.sort_by_key(|file| fs::metadata(file).unwrap().len());
        all.pop().unwrap()
    };
    let object = largest(&store.join("objects"));
    spoil(&object);
    spoil(&copy.join("objects").join(object.file_name().unwrap()));
    let said = site.run(&["repair", "home"]);
    assert!(
        said.out
            .contains(&format!("stored anew from {}", src.display())),
        "{}{}",
        said.out,
        said.err
    );
    assert_same_tree(&src, &site.home.restored("latest", "home"));
    // A remote that cannot be asked is a warning.
    let config = fs::read_to_string(site.home.path("conf/config.toml")).unwrap();
    site.configure(
        &config[config.find('[').unwrap()..].replace("http://127.0.0.1:", "http://127.0.0.1:1"),
    );
    assert_ne!(site.run(&["repair", "home"]).code, Some(0));
}

#[test]
fn a_store_that_came_back_halfway_is_gone_on_with() {
    let (site, src) = site("rdiff");
    let store = site.home.store("home");
    // Only the states are lost.
    fs::remove_dir_all(store.join("state")).unwrap();
    site.run(&["repair", "home"]).ends(0);
    site.run(&["verify", "--deep", "home"]).ends(0);
    // The copy lacks a file, so it comes back halfway; what came is not fetched again.
    fs::remove_dir_all(&store).unwrap();
    let delta = files(&site.server.bucket().join("here/home/deltas"))[0].clone();
    fs::rename(&delta, site.home.path("delta")).unwrap();
    let said = site.run(&["repair", "home"]).ends(5);
    assert!(
        said.out.contains("lost, unless another copy has it"),
        "{}",
        said.out
    );
    assert_same_tree(&src, &site.home.restored("latest", "home"));
    fs::rename(site.home.path("delta"), &delta).unwrap();
    site.run(&["repair", "home"]).ends(0);
    site.run(&["verify", "--deep", "home"]).ends(0);
    // The server goes away in the middle: what came is not fetched again.
    fs::remove_dir_all(&store).unwrap();
    site.server
        .rule(|number, _| (number > 7).then_some(crate::server::Fault::Status(503)));
    site.run(&["repair", "home"]).ends(1);
    assert!(!store.join("state/0000000004").exists());
    let came = files(&store.join("catalogs")).len() + files(&store.join("deltas")).len();
    assert!(came > 0, "nothing came");
    site.server.no_rule();
    site.run(&["repair", "home"]).ends(0);
    site.run(&["verify", "--deep", "home"]).ends(0);
    site.run(&["fs", src.to_str().unwrap(), "home"]).ends(0);
}

#[test]
fn copies_of_other_stores_have_no_part_in_it() {
    let (site, src) = site("rdiff");
    // Another machine with a store of its own, whose sync was refused.
    let other = site.home.path("other");
    fs::create_dir_all(other.join("conf")).unwrap();
    fs::create_dir_all(other.join("root")).unwrap();
    let config = format!(
        "ROOT_PATH = '{}'\n{}",
        other.join("root").display(),
        site.server.config("offsite", "here")
    );
    fs::write(other.join("conf/config.toml"), config).unwrap();
    let run = |args: &[&str]| {
        let mut command = site.home.command(args);
        command
            .env("BTW_BACKUP_CONFIG_DIR", other.join("conf"))
            .envs(site.server.environment());
        crate::tools::Said::of(command.output().unwrap())
    };
    for n in 5..=7 {
        trees::release(&src, n);
        run(&["fs", "--init", src.to_str().unwrap(), "home"]).ends(3);
    }
    let state = other.join("root/home/state/0000000004");
    let good = fs::read(&state).unwrap();
    spoil(&state);
    let bad = fs::read(&state).unwrap();
    run(&["repair", "home"])
        .ends(1)
        .complains("holds another store");
    assert_eq!(fs::read(&state).unwrap(), bad);
    fs::write(&state, good).unwrap();
    // Nor is anything written there.
    let there = site.server.bucket().join("here/home/state/0000000004");
    spoil(&there);
    let before = fs::read(&there).unwrap();
    run(&["repair", "home"]);
    assert_eq!(fs::read(&there).unwrap(), before);
    site.run(&["repair", "home"]).ends(0);
    site.elsewhere(&["verify", "--deep", "s3://backups/here/home"])
        .ends(0);
}

#[test]
fn an_archive_and_its_digest_damaged_on_different_sides() {
    for (damage_archive_here, damage_archive_there) in [(true, false), (false, true)] {
        let (site, _) = site("tar");
        let (store, copy) = (
            site.home.store("home"),
            site.server.bucket().join("here/home"),
        );
        let digest = files(&store)
            .into_iter()
            .find(|file| file.to_str().unwrap().ends_with(".sha256"))
            .unwrap();
        let archive = digest.with_extension("");
        let name = archive.file_name().unwrap().to_str().unwrap().to_owned();
        let piece = files(&copy)
            .into_iter()
            .find(|file| file.to_str().unwrap().contains(&format!("{name}.part-")))
            .unwrap();
        let good = (fs::read(&archive).unwrap(), fs::read(&digest).unwrap());
        spoil(if damage_archive_here {
            &archive
        } else {
            &digest
        });
        if damage_archive_there {
            spoil(&piece);
        } else {
            spoil(&copy.join(digest.file_name().unwrap()));
        }
        let said = site.run(&["repair", "home"]);
        assert_eq!(
            (fs::read(&archive).unwrap(), fs::read(&digest).unwrap()),
            good,
            "{}{}",
            said.out,
            said.err
        );
        assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
        site.run(&["verify", "--deep", "home"]).ends(0);
        site.elsewhere(&["verify", "--deep", "s3://backups/here/home"])
            .ends(0);
    }
}

#[test]
fn the_second_remote_is_asked_when_the_first_is_damaged_too() {
    let (site, _) = site("rdiff");
    let disk = site.home.path("disk");
    fs::create_dir(&disk).unwrap();
    let two = format!(
        "{}[remote.second]\nurl = 'file://{}'\n",
        site.server.config("a", "here"),
        disk.display()
    );
    site.configure(&two);
    site.run(&["sync"]).ends(0);
    let store = site.home.store("home");
    for dir in ["state", "catalogs"] {
        let file = files(&store.join(dir)).pop().unwrap();
        let good = fs::read(&file).unwrap();
        spoil(&file);
        spoil(
            &site
                .server
                .bucket()
                .join("here/home")
                .join(dir)
                .join(file.file_name().unwrap()),
        );
        site.run(&["repair", "home"]).ends(0);
        assert_eq!(fs::read(&file).unwrap(), good);
        site.elsewhere(&["verify", "--deep", "s3://backups/here/home"])
            .ends(0);
    }
}
