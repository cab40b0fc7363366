//! The parts of the engine, each beside a reference on the same bytes: `cargo bench`.
//!
//! Read ratios, not absolute figures: machines are shared and noisy.

use std::fs;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use btw_backup::catalog::StoreType;
use btw_backup::delta::apply::apply;
use btw_backup::delta::compose::compose;
use btw_backup::delta::diff::diff;
use btw_backup::delta::{Script, wire};
use btw_backup::digest::{BLOCK_BYTES, Digest, is_zero};
use btw_backup::ops::backup::{Detection, Options, Source, Tree, backup};
use btw_backup::ops::restore;
use btw_backup::plan::chain::ChainPolicy;
use btw_backup::report::Silent;
use btw_backup::store::Store;
use btw_backup::store::codec::{self, Knobs};
use btw_backup::store::disk::LocalDisk;
use btw_backup::store::sequence::Sequence;
use btw_backup::store::stream::VersionStream;
use btw_backup::tree::found::Step;
use btw_backup::tree::owners::OwnerRule;
use btw_backup::tree::select::Selection;
use btw_backup::tree::walk::Walk;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use jiff::{SignedDuration, Timestamp};
use rayon::prelude::{ParallelIterator, ParallelSlice};

const MIB: usize = 1 << 20;

/// Numbers that are the same in every run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).expect("31 bits") % limit
    }
}

/// Text that compresses as source code does.
fn text(len: usize, seed: u64) -> Vec<u8> {
    let words = [
        "let", "value", "result", "self", "return", "match", "iter", "name", "path", "if", "else",
        "map", "(x)", "{", "}", "=>",
    ];
    let (mut dice, mut out) = (Dice(seed), Vec::with_capacity(len + 64));
    while out.len() < len {
        for _ in 0..3 + dice.below(6) {
            out.extend_from_slice(words[dice.below(words.len())].as_bytes());
            out.push(b' ');
        }
        out.extend_from_slice(format!("{}\n", dice.below(100_000)).as_bytes());
    }
    out.truncate(len);
    out
}

/// Another version: one line in two hundred is changed, here and there one goes or comes.
fn edited(old: &[u8], seed: u64) -> Vec<u8> {
    let (mut dice, mut out) = (Dice(seed), Vec::with_capacity(old.len()));
    for line in old.split_inclusive(|byte| *byte == b'\n') {
        match dice.below(200) {
            0 => out.extend_from_slice(b"changed line\n"),
            1 if dice.below(2) == 0 => {}
            2 => out.extend_from_slice(&[line, b"a new line\n"].concat()),
            _ => out.extend_from_slice(line),
        }
    }
    out
}

fn hashing(c: &mut Criterion) {
    let bytes = text(64 * MIB, 1);
    let copy = bytes.clone();
    let mut group = c.benchmark_group("hashing 64 MiB");
    group
        .throughput(Throughput::Bytes(bytes.len() as u64))
        .sample_size(10);
    group.bench_function("reference: memcmp, one thread", |b| {
        b.iter(|| black_box(&bytes) == black_box(&copy));
    });
    group.bench_function("reference: BLAKE3 of the whole, one thread", |b| {
        b.iter(|| Digest::of(black_box(&bytes)));
    });
    group.bench_function("64 KiB blocks, one thread", |b| {
        b.iter(|| {
            bytes
                .chunks(BLOCK_BYTES)
                .map(Digest::of)
                .fold(0, |sum, digest| sum ^ digest.0[0])
        });
    });
    group.bench_function("64 KiB blocks, all threads", |b| {
        b.iter(|| {
            bytes
                .par_chunks(BLOCK_BYTES)
                .map(|block| Digest::of(block).0[0])
                .reduce(|| 0, |a, b| a ^ b)
        });
    });
    let zeros = vec![0; 64 * MIB];
    group.bench_function("blocks of zeros recognised, one thread", |b| {
        b.iter(|| zeros.chunks(BLOCK_BYTES).all(is_zero));
    });
    group.finish();
}

fn matching(c: &mut Criterion) {
    let old = text(8 * MIB, 2);
    let new = edited(&old, 3);
    let newest = edited(&new, 4);
    let mut group = c.benchmark_group("deltas of 8 MiB of text, 1 % edited");
    group
        .throughput(Throughput::Bytes(old.len() as u64))
        .sample_size(10);
    let signature = fast_rsync::Signature::calculate(
        &new,
        fast_rsync::SignatureOptions {
            block_size: 512,
            crypto_hash_size: 16,
        },
    );
    let index = signature.index();
    group.bench_function("reference: fast_rsync, signature at hand", |b| {
        b.iter(|| {
            let mut out = Vec::new();
            fast_rsync::diff(&index, &old, &mut out).expect("sound input");
            out.len()
        });
    });
    group.bench_function("diff", |b| b.iter(|| diff(&new, &old).len()));
    let (first, second) = (diff(&new, &old), diff(&newest, &new));
    let coded = wire::encode(&first);
    group.bench_function("reference: fast_rsync, apply", |b| {
        b.iter(|| {
            let mut out = Vec::with_capacity(old.len());
            fast_rsync::apply(&new, &coded, &mut out).expect("a sound delta");
            out.len()
        });
    });
    group.bench_function("apply", |b| {
        b.iter(|| {
            let mut out = Vec::with_capacity(old.len());
            apply(&new, &first, &mut out).expect("a sound delta");
            out.len()
        });
    });
    group.bench_function("compose two", |b| {
        b.iter(|| compose(&second, &first).as_ref().map(Script::len));
    });
    group.finish();
    let size = |bytes: &[u8]| codec::encode(bytes, 19).len();
    let mut rsync = Vec::new();
    fast_rsync::diff(&index, &old, &mut rsync).expect("sound input");
    println!(
        "delta, zstd -19: {} bytes; of fast_rsync: {} bytes",
        size(&coded),
        size(&rsync)
    );
}

fn coding(c: &mut Criterion) {
    let mut group = c.benchmark_group("frames of 4 MiB of text");
    let raw = text(4 * MIB, 5);
    group
        .throughput(Throughput::Bytes(raw.len() as u64))
        .sample_size(10);
    for level in [codec::CONTENT_LEVEL, codec::PAGE_LEVEL] {
        group.bench_with_input(
            BenchmarkId::new("encode and prove", level),
            &level,
            |b, level| {
                b.iter(|| {
                    codec::encode_proved(&raw, *level, |_| {})
                        .expect("it proves")
                        .len()
                });
            },
        );
        group.bench_with_input(
            BenchmarkId::new("reference: zstd", level),
            &level,
            |b, level| {
                b.iter(|| {
                    zstd::bulk::compress(&raw, *level)
                        .expect("it compresses")
                        .len()
                });
            },
        );
    }
    let stored = codec::encode(&raw, codec::CONTENT_LEVEL);
    let raw_bytes = u32::try_from(raw.len()).expect("4 MiB");
    group.bench_function("decode", |b| {
        b.iter(|| {
            codec::decode(&stored, raw_bytes, "bench")
                .expect("it decodes")
                .len()
        });
    });
    group.finish();
}

fn names_below(dir: &Path) -> usize {
    let entries = fs::read_dir(dir).expect("it is there").flatten();
    entries
        .map(|entry| {
            if entry.metadata().is_ok_and(|metadata| metadata.is_dir()) {
                names_below(&entry.path())
            } else {
                1
            }
        })
        .sum()
}

fn walking(c: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a directory");
    for outer in 0..100 {
        let inner = dir.path().join(format!("dir{outer}"));
        fs::create_dir(&inner).expect("a directory");
        for file in 0..100 {
            fs::write(inner.join(format!("file{file}")), b"x").expect("a file");
        }
    }
    let mut group = c.benchmark_group("walking 10,000 files");
    group
        .throughput(Throughput::Elements(10_000))
        .sample_size(10);
    group.bench_function("reference: readdir and lstat", |b| {
        b.iter(|| names_below(dir.path()));
    });
    group.bench_function("walk", |b| {
        b.iter(|| {
            let mut walk = Walk::open(dir.path(), &Selection::default()).expect("it opens");
            std::iter::from_fn(|| walk.next_step())
                .filter(|step| matches!(step, Step::Found(_)))
                .count()
        });
    });
    group.finish();
}

/// A store of 64 MiB: 40 files of 1.6 MiB of text.
fn restoring(c: &mut Criterion) {
    let dir = tempfile::tempdir().expect("a directory");
    let source = dir.path().join("source");
    fs::create_dir(&source).expect("a directory");
    let files = 40;
    let bytes = 64 * MIB / files;
    for file in 0..files {
        let content = text(bytes, file as u64);
        fs::write(source.join(format!("file{file}")), content).expect("a file");
    }
    let disk = LocalDisk::create(dir.path(), Path::new("store"), None).expect("a directory");
    let store = Store::new(Arc::new(disk), "store");
    backup(&store, &options(source.clone()), &Silent).expect("a backup");
    let mut group = c.benchmark_group("restoring 64 MiB of text");
    group
        .throughput(Throughput::Bytes(64 * MIB as u64))
        .sample_size(10);
    let versions = store
        .versions(&store.current().expect("a state"))
        .expect("versions");
    let mut number = 0;
    // Into new directories: those of before are removed at the end.
    let mut target = || {
        number += 1;
        dir.path().join(format!("target{number}"))
    };
    group.bench_function("reference: copying the files", |b| {
        b.iter(|| {
            let target = target();
            fs::create_dir(&target).expect("a directory");
            for file in 0..files {
                let name = format!("file{file}");
                fs::copy(source.join(&name), target.join(&name)).expect("a copy");
            }
        });
    });
    group.bench_function("restore", |b| {
        b.iter(|| {
            let options = restore::Options {
                target: &target(),
                partial: false,
                choice: &restore::Choice::default(),
                owners: OwnerRule::ByNumber,
            };
            restore::restore(&store, &versions, 0, &options, &Silent).expect("a restore")
        });
    });
    group.bench_function("read alone", |b| {
        b.iter(|| {
            let stream = VersionStream::open(&store, &versions, 0).expect("a stream");
            let mut sequence = Sequence::of(&stream).expect("a sequence");
            let (mut buffer, mut sum) = (Vec::new(), 0);
            while let Some((_, window)) = sequence.next_window(buffer).expect("a window") {
                sum += window.len();
                buffer = window;
            }
            sum
        });
    });
    group.finish();
}

fn options(source: PathBuf) -> Options {
    Options {
        source: Source::Tree(Box::new(Tree {
            path: source,
            selection: Selection::default(),
            detection: Detection::Bytes,
        })),
        source_name: b"source".to_vec(),
        host: "host".into(),
        store_type: StoreType::Rdiff,
        chain: ChainPolicy {
            max_incremental_count: 10,
            max_incremental_span: SignedDuration::from_hours(24),
            fulls_kept: 2,
        },
        allow_empty: false,
        adopt: false,
        expected: None,
        now: Timestamp::UNIX_EPOCH,
        knobs: Knobs::REAL,
    }
}

criterion_group!(parts, hashing, matching, coding, walking, restoring);
criterion_main!(parts);
