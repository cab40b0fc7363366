//! Our deltas against other people's programs: `rdiff` (librsync) and `fast_rsync`, in both directions.

#![expect(
    clippy::unwrap_used,
    reason = "a test ends where something is not as it must be"
)]

use std::fs;
use std::process::Command;

use btw_backup::delta::apply::apply;
use btw_backup::delta::compose::compose;
use btw_backup::delta::diff::diff;
use btw_backup::delta::{Script, wire};
use proptest::prelude::{Just, ProptestConfig, Strategy, any, prop, prop_oneof, proptest};

/// How many cases are tried: more in the full form of the tests.
fn cases(short: u32) -> u32 {
    if std::env::var_os("BTW_TEST_FULL").is_some() {
        short * 100
    } else {
        short
    }
}

/// Bytes as backups meet them: noise, runs of one byte, periodic data.
fn content() -> impl Strategy<Value = Vec<u8>> {
    let noise = prop::collection::vec(any::<u8>(), 0..3000);
    let run = (any::<u8>(), 0_usize..3000).prop_map(|(byte, len)| vec![byte; len]);
    let periodic = (prop::collection::vec(any::<u8>(), 1..40), 0_usize..200)
        .prop_map(|(unit, times)| unit.repeat(times));
    prop::collection::vec(prop_oneof![noise, run, periodic], 0..6).prop_map(|parts| parts.concat())
}

/// Another version of the same content: parts moved, lost, doubled, changed.
fn edited(base: Vec<u8>) -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    let edits = prop::collection::vec(
        (
            any::<prop::sample::Index>(),
            any::<prop::sample::Index>(),
            0_u8..4,
            prop::collection::vec(any::<u8>(), 0..50),
        ),
        0..8,
    );
    (Just(base), edits).prop_map(|(base, edits)| {
        let mut other = base.clone();
        for (a, b, kind, bytes) in edits {
            let (a, b) = (a.index(other.len() + 1), b.index(other.len() + 1));
            let (from, to) = (a.min(b), a.max(b));
            match kind {
                0 => drop(other.drain(from..to)),
                1 => drop(other.splice(from..from, bytes)),
                2 => {
                    let part = other[from..to].to_vec();
                    other.extend(part);
                }
                _ => other[from..to]
                    .iter_mut()
                    .take(3)
                    .for_each(|byte| *byte ^= 0x55),
            }
        }
        (base, other)
    })
}

fn pair() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    content().prop_flat_map(edited)
}

fn applied(base: &[u8], script: &Script) -> Vec<u8> {
    let mut out = Vec::new();
    apply(base, script, &mut out).unwrap();
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases(400)))]

    #[test]
    fn a_delta_rebuilds_the_old_from_the_new((new, old) in pair()) {
        let script = diff(&new, &old);
        assert_eq!(applied(&new, &script), old);
        let decoded = wire::decode(wire::encode(&script), wire::WHOLE).unwrap();
        assert_eq!(applied(&new, &decoded), old);
    }

    #[test]
    fn composition_is_two_steps_in_one_and_associative((four, three) in pair(), seed_two in pair(), (one, _) in pair()) {
        let two = [three.as_slice(), &seed_two.1].concat();
        let (d43, d32, d21) = (diff(&four, &three), diff(&three, &two), diff(&two, &one));
        let d42 = compose(&d43, &d32).unwrap();
        assert_eq!(applied(&four, &d42), two);
        let left = compose(&d42, &d21).unwrap();
        let right = compose(&d43, &compose(&d32, &d21).unwrap()).unwrap();
        assert_eq!(left.pieces().collect::<Vec<_>>(), right.pieces().collect::<Vec<_>>());
        assert_eq!(applied(&four, &left), one);
    }

    #[test]
    fn fast_rsync_applies_ours_and_we_apply_its((new, old) in pair()) {
        let mut out = Vec::new();
        let delta = wire::encode(&diff(&new, &old));
        fast_rsync::apply_limited(&new, &delta, &mut out, old.len() + 1).unwrap();
        assert_eq!(out, old);
        let options = fast_rsync::SignatureOptions { block_size: 64, crypto_hash_size: 16 };
        let signature = fast_rsync::Signature::calculate(&new, options);
        let mut theirs = Vec::new();
        fast_rsync::diff(&signature.index(), &old, &mut theirs).unwrap();
        assert_eq!(applied(&new, &wire::decode(theirs, wire::WHOLE).unwrap()), old);
    }

    #[test]
    fn a11_scripts_from_any_bytes_are_applied_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), base in prop::collection::vec(any::<u8>(), 0..100)) {
        if let Ok(script) = wire::decode([&wire::MAGIC[..], &bytes, &[0]].concat(), wire::WHOLE)
            && script.output_bytes() < 1 << 20
        {
            let mut out = Vec::new();
            let result = apply(&base, &script, &mut out);
            assert_eq!(result.is_ok(), script.base_bytes_needed() <= base.len() as u64);
            assert_eq!(out.len() as u64, if result.is_ok() { script.output_bytes() } else { 0 }, "a12: nothing is written before the check");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases(40)))]

    #[test]
    fn rdiff_patches_with_ours_and_we_with_its((new, old) in pair()) {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("new"), &new).unwrap();
        fs::write(path("old"), &old).unwrap();
        fs::write(path("ours"), wire::encode(&diff(&new, &old))).unwrap();
        let rdiff = |args: &[&str]| {
            let status = Command::new("rdiff").args(args).current_dir(dir.path()).status().expect("rdiff is installed (tests/run does it)");
            assert!(status.success(), "rdiff {args:?}");
        };
        rdiff(&["patch", "new", "ours", "patched"]);
        assert_eq!(fs::read(path("patched")).unwrap(), old);
        rdiff(&["-b", "128", "signature", "new", "signature"]);
        rdiff(&["delta", "signature", "old", "theirs"]);
        let theirs = wire::decode(fs::read(path("theirs")).unwrap(), wire::WHOLE).unwrap();
        assert_eq!(applied(&new, &theirs), old);
    }
}
