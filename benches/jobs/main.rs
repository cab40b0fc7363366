//! Whole jobs, ours beside every peer that is on the machine: `cargo bench --bench jobs`. benches/README.md
//! says what is measured and how to read it.

mod data;
mod deltas;
mod jobs;
mod measure;
mod plot;
mod pool;
mod report;
mod tools;

use std::fs;
use std::path::PathBuf;

use clap::Parser;

use data::Set;
use report::Results;

/// Compares btw-backup with other tools, job by job.
#[derive(Debug, Parser)]
struct Options {
    /// Where data and stores are made (much room), and removed again.
    #[arg(long, default_value = "target/jobs")]
    work: PathBuf,
    /// Where results.json, results.md and results.svg go.
    #[arg(long, default_value = "target/jobs-results")]
    out: PathBuf,
    /// Which sets: image, full-image, tree, releases, dump, small, history.
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "image,full-image,tree,releases,dump,history"
    )]
    sets: Vec<String>,
    /// Which tools; all that are there by default.
    #[arg(long, value_delimiter = ',')]
    tools: Vec<String>,
    /// The length of the disk image; about half of it is data.
    #[arg(long, default_value = "4GiB")]
    image: bytesize::ByteSize,
    /// How many files the tree has.
    #[arg(long, default_value_t = 50_000)]
    files: usize,
    /// How many files the set `small` has.
    #[arg(long, default_value_t = 1_000_000)]
    small_files: usize,
    /// The length of the SQL dump.
    #[arg(long, default_value = "512MiB")]
    dump: bytesize::ByteSize,
    /// How often image, tree and dump change.
    #[arg(long, default_value_t = 10)]
    generations: usize,
    /// How many versions the set `history` gets.
    #[arg(long, default_value_t = 200)]
    history: usize,
    /// How often each job is done; changes are different ones, each done once.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// A directory with archives of successive releases (tar, wheel), in the order of their names. Ten releases of
    /// Django are fetched by pip if it is missing.
    #[arg(long)]
    releases: Option<PathBuf>,
    /// Real files come from here.
    #[arg(long, value_delimiter = ',', default_value = "/usr")]
    pool: Vec<PathBuf>,
    /// The program to measure.
    #[arg(long, default_value = env!("CARGO_BIN_EXE_btw-backup"))]
    program: PathBuf,
    /// Do not delete data and stores of the last set.
    #[arg(long)]
    keep: bool,
    /// What `cargo bench` adds.
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() {
    if let Err(error) = run(&Options::parse()) {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

fn run(options: &Options) -> Result<(), String> {
    fs::create_dir_all(&options.out).map_err(|error| error.to_string())?;
    let program = options.program.display().to_string();
    let mut results = Results::new(&program);
    let wanted =
        |name: &str| options.tools.is_empty() || options.tools.iter().any(|tool| tool == name);
    let mut found = Vec::new();
    for tool in tools::TOOLS.iter().filter(|tool| wanted(tool.name)) {
        match tools::version(tool.version, &program) {
            Some(version) => {
                results.versions.push((tool.name.to_owned(), version));
                found.push(tool);
            }
            None => results.missing.push(tool.name.to_owned()),
        }
    }
    for name in &options.sets {
        let work = options.work.join(name);
        let _ = fs::remove_dir_all(&work);
        fs::create_dir_all(&work).map_err(|error| format!("{}: {error}", work.display()))?;
        let work = work.canonicalize().map_err(|error| error.to_string())?;
        let (set, generations) = set(name, options)?;
        eprintln!("{name}: {set:?}");
        let plan = jobs::Plan {
            name,
            runs: options.runs,
            generations,
            few_files: matches!(set, Set::Image { .. } | Set::Dump { .. }),
            program: &program,
            work: &work,
        };
        let pool = pool::Pool::of(&options.pool)?;
        jobs::run(&plan, &set, pool, &found, &mut results)?;
        results.save(&options.out)?;
        if !options.keep {
            fs::remove_dir_all(&work).map_err(|error| error.to_string())?;
        }
    }
    print!("{}", results.markdown());
    Ok(())
}

fn set(name: &str, options: &Options) -> Result<(Set, usize), String> {
    let days = options.generations;
    Ok(match name {
        "image" | "full-image" => {
            let (bytes, sparse) = (options.image.as_u64(), name == "image");
            (
                Set::Image { bytes, sparse },
                if sparse { days } else { days.min(2) },
            )
        }
        "tree" => (
            Set::Tree {
                files: options.files,
            },
            days,
        ),
        "releases" => {
            let archives = releases(options)?;
            let days = archives.len() - 1;
            (Set::Releases { archives }, days)
        }
        "dump" => (
            Set::Dump {
                bytes: options.dump.as_u64(),
            },
            days,
        ),
        "small" => (
            Set::Small {
                files: options.small_files,
            },
            days.min(2),
        ),
        "history" => (Set::Tree { files: 2000 }, options.history),
        _ => return Err(format!("There is no set '{name}'")),
    })
}

/// The archives of the releases, fetched if need be.
fn releases(options: &Options) -> Result<Vec<PathBuf>, String> {
    const VERSIONS: [&str; 10] = [
        "2.0", "2.1", "2.2", "3.0", "3.1", "3.2", "4.0", "4.1", "4.2", "5.0",
    ];
    let dir = options
        .releases
        .clone()
        .unwrap_or_else(|| options.work.join("archives"));
    if options.releases.is_none() {
        for version in VERSIONS {
            let fetch = "python3 -m pip download -q --no-deps --only-binary :all: --python-version 3.12 -d $DIR";
            measure::quiet(
                &format!("{fetch} django=={version}"),
                &data::env(&[("DIR", &dir)]),
            )?;
        }
    }
    let entries = fs::read_dir(&dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let mut archives: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    archives.sort();
    if archives.len() < 2 {
        return Err(format!(
            "{}: there must be two releases at least",
            dir.display()
        ));
    }
    Ok(archives)
}
