//! Stores of TYPE tar: each version a file of its own.

use std::fs;
use std::path::Path;

use crate::tools::{Home, assert_same_tree, restored_by_hand, tool};
use crate::trees;

fn archives(store: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(store)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".tar.zst"))
        .collect();
    names.sort();
    names
}

#[test]
fn h12_each_version_is_an_archive_complete_in_itself() {
    let home = Home::new();
    let src = home.path("src");
    fs::create_dir(&src).unwrap();
    home.run(&["fs-init", "--type", "tar", src.to_str().unwrap(), "pkg"])
        .ends(0);
    for n in 1..=4 {
        let _ = fs::remove_dir_all(&src);
        trees::release(&src, n);
        trees::image(&src.join("image"), 9_000_000, n);
        home.run(&["fs", src.to_str().unwrap(), "pkg"]).ends(0);
        let again = home.run(&["fs", src.to_str().unwrap(), "pkg"]).ends(0);
        assert!(again.out.contains(": dropping backup"), "{}", again.out);
        let kept = home.path(&format!("state{n}"));
        tool("cp", &["-a", src.to_str().unwrap(), kept.to_str().unwrap()]);
    }
    let store = home.store("pkg");
    let archives = archives(&store);
    assert_eq!(archives.len(), 4);
    for (n, archive) in (1..).zip(&archives) {
        let kept = home.path(&format!("state{n}"));
        assert_same_tree(&kept, &home.restored(&format!("v{n}"), "pkg"));
        assert_same_tree(&kept, &restored_by_hand(&home, "pkg", n));
        // By itself, far from the store, with tools that know nothing of it.
        let alone = home.path(&format!("alone{n}"));
        fs::create_dir(&alone).unwrap();
        for name in [archive.clone(), format!("{archive}.sha256")] {
            fs::copy(store.join(&name), alone.join(&name)).unwrap();
        }
        let script = format!(
            "cd {} && sha256sum --quiet -c *.sha256 && mkdir tree && tar --zstd --xattrs --xattrs-include='*' --acls --numeric-owner -xpf {archive} -C tree",
            alone.display()
        );
        tool("bash", &["-c", &script]);
        assert_same_tree(&kept, &alone.join("tree"));
    }
    let left = tool(
        "find",
        &[store.join("objects").to_str().unwrap(), "-type", "f"],
    );
    assert_eq!(left, "", "objects are of no use beside archives");
    let log = fs::read_to_string(store.join("log.txt")).unwrap();
    assert_eq!(
        log.matches(": no change in the data to be backed up: dropping backup\n")
            .count(),
        4
    );
}

#[test]
fn f1_a_missing_archive_is_named_and_the_others_come_back() {
    let home = Home::new();
    let src = home.path("src");
    home.run(&["fs-init", "--type", "tar", src.to_str().unwrap(), "pkg"])
        .ends(0);
    for n in 1..=2 {
        let _ = fs::remove_dir_all(&src);
        trees::release(&src, n);
        home.run(&["fs", src.to_str().unwrap(), "pkg"]).ends(0);
    }
    let names = archives(&home.store("pkg"));
    fs::remove_file(home.store("pkg").join(&names[0])).unwrap();
    home.run(&[
        "restore",
        "--at",
        "v1",
        "pkg",
        home.path("no").to_str().unwrap(),
    ])
    .ends(5)
    .complains(&names[0]);
    assert_same_tree(&src, &home.restored("v2", "pkg"));
    home.run(&["fs", src.to_str().unwrap(), "pkg"])
        .ends(5)
        .complains(&names[0]);
    // The digest file is for people: without it nothing is lost.
    fs::remove_file(home.store("pkg").join(format!("{}.sha256", names[1]))).unwrap();
    assert_same_tree(&src, &home.restored("v2", "pkg"));
}

#[test]
fn k3_the_type_of_a_store_cannot_change() {
    let home = Home::new();
    let src = home.path("src");
    trees::release(&src, 1);
    home.fs(&src, "pkg").ends(0);
    home.configure_source("pkg", "TYPE = \"rdiff\"", "TYPE = \"tar\"");
    fs::write(src.join("new"), "new").unwrap();
    home.run(&["fs", src.to_str().unwrap(), "pkg"])
        .ends(1)
        .complains("is of TYPE rdiff, the configuration says tar");
    home.run(&["fs", src.to_str().unwrap(), "other"]).ends(0);
    assert_eq!(archives(&home.store("other")).len(), 1);
}

/// Damage that no sample has met yet is no reason to have no new version.
#[test]
fn f1_a_backup_goes_on_although_the_newest_version_is_damaged() {
    for (store_type, dir) in [("tar", ""), ("rdiff", "objects")] {
        let home = Home::new();
        let src = home.path("src");
        fs::create_dir(&src).unwrap();
        for n in 0..8 {
            let script = format!(
                "head -c 5M /dev/urandom > {}",
                src.join(format!("f{n}")).display()
            );
            tool("bash", &["-c", &script]);
        }
        home.run(&["fs-init", "--type", store_type, src.to_str().unwrap(), "s"])
            .ends(0);
        home.run(&["fs", src.to_str().unwrap(), "s"]).ends(0);
        // Every frame is hit, so that whichever is needed shows it.
        let files = fs::read_dir(home.store("s").join(dir))
            .unwrap()
            .map(|entry| entry.unwrap().path());
        for file in
            files.filter(|path| path.is_file() && path.metadata().unwrap().len() > 1_000_000)
        {
            let mut bytes = fs::read(&file).unwrap();
            for at in (500_000..bytes.len()).step_by(1_000_000) {
                bytes[at] ^= 1;
            }
            fs::write(&file, bytes).unwrap();
        }
        fs::write(src.join("f3"), "changed").unwrap();
        home.run(&["fs", src.to_str().unwrap(), "s"])
            .ends(5)
            .complains("damaged");
        assert_same_tree(&src, &home.restored("v2", "s"));
    }
}
