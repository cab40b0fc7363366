//! `plot`: the versions of a store over time; what a policy would keep, now or in the long run.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::Context;
use super::args::Reading;
use super::deletion_args::Plot;
use super::draw::{self, Dot, Picture};
use super::exit::Exit;
use super::fs::output_bytes;
use super::output::{Output, unwritten};
use super::{owner, stores};
use crate::catalog::Version;
use crate::error::Error;
use crate::ops::delete::prune::verdicts;
use crate::plan::retention::{Policy, Simulation, Verdict, simulate, words};
use crate::time::parse_span;

/// Bars are at most so long; each of their steps is a doubling.
const BAR: usize = 40;

pub fn run(context: &Context, args: &Plot) -> Result<Exit, Error> {
    if let Some(span) = &args.simulate {
        return simulated(context, args, span);
    }
    let dst = args.dst.clone().ok_or_else(|| {
        Error::Usage("name a store, or a time to simulate with --simulate".into())
    })?;
    let reading = Reading {
        user: args.user.clone(),
        remote: None,
        state: None,
        dst,
    };
    let read = stores::open_to_read(context, &reading)?;
    let policy = policy(args)?.map_or_else(|| configured(context, &read), |it| Ok(Some(it)))?;
    let zone = TimeZone::system();
    let judged = policy.as_ref().map(|policy| {
        verdicts(
            &read.store,
            &read.state,
            &read.versions,
            policy,
            Timestamp::now(),
            &zone,
        )
    });
    let judged = judged.transpose()?;
    let targets = policy.map_or_else(Vec::new, |policy| policy.partitioned);
    match &args.output {
        Some(path) => {
            let picture = picture(&reading.dst, &read.versions, judged.as_deref(), &targets);
            draw::draw(&picture, path)?;
            context.output.info(&format!("{} drawn", path.display()));
        }
        None => in_terminal(&read.versions, judged.as_deref(), &targets, &zone)?,
    }
    Ok(Exit::Done)
}

/// The rules that are applied after each backup of the store's source.
fn configured(context: &Context, read: &stores::Read) -> Result<Option<Policy>, Error> {
    let work = owner::trusted_workdir(context, read.state.source_path())?;
    let keeping = work.map(|work| work.keeping()).transpose()?;
    Ok(keeping.and_then(|keeping| keeping.retention))
}

fn policy(args: &Plot) -> Result<Option<Policy>, Error> {
    let written = (!args.retention.is_empty()).then(|| args.retention.policy());
    written.transpose().map_err(Error::Usage)
}

fn picture(
    name: &str,
    versions: &[Version],
    judged: Option<&[Verdict]>,
    targets: &[SignedDuration],
) -> Picture {
    let newest = versions
        .last()
        .map_or(0, |version| version.time.as_second());
    let dots = versions.iter().enumerate().map(|(index, version)| Dot {
        seconds: version.time.as_second(),
        value: version.stored_bytes().max(1),
        is_whole: version.whole.is_some(),
        stays: judged.is_none_or(|judged| judged[index].stays),
    });
    Picture {
        title: format!(
            "{name}: {} versions and the bytes that the store holds for each",
            versions.len()
        ),
        unit: "bytes",
        dots: dots.collect(),
        lines: targets
            .iter()
            .map(|age| (newest - age.as_secs(), words(*age)))
            .collect(),
    }
}

/// A line for each version, the newest first; lines across are the ages of a partition.
fn in_terminal(
    versions: &[Version],
    judged: Option<&[Verdict]>,
    targets: &[SignedDuration],
    zone: &TimeZone,
) -> Result<(), Error> {
    let Some(newest) = versions.last().map(|version| version.time) else {
        return Ok(());
    };
    let mut targets = targets.iter().peekable();
    Output::answer_with(|out| {
        for (index, version) in versions.iter().enumerate().rev() {
            let age = newest.duration_since(version.time);
            while let Some(target) = targets.next_if(|target| age >= **target) {
                writeln!(out, "{:-<70} {}", "", words(*target)).map_err(unwritten)?;
            }
            let bytes = version.stored_bytes();
            let filled =
                usize::try_from(bytes.checked_ilog2().map_or(0, |log| log + 1)).unwrap_or(BAR);
            let mark = if version.whole.is_some() { '#' } else { '=' };
            let bar: String = std::iter::repeat_n(mark, filled.min(BAR)).collect();
            let time = version
                .time
                .to_zoned(zone.clone())
                .strftime("%Y-%m-%d %H:%M")
                .to_string();
            let verdict = judged.map_or(
                "",
                |judged| if judged[index].stays { "stays" } else { "goes" },
            );
            writeln!(
                out,
                "{time} {:>6} {bar:<BAR$} {:>11} {verdict}",
                format!("v{}", version.seq),
                output_bytes(bytes)
            )
            .map_err(unwritten)?;
        }
        writeln!(
            out,
            "# whole, = delta; each step of a bar doubles the bytes held"
        )
        .map_err(unwritten)
    })
}

fn simulated(context: &Context, args: &Plot, span: &str) -> Result<Exit, Error> {
    let policy = policy(args)?.ok_or_else(|| {
        Error::Usage(
            "nothing says what is to stay: name rules, as in --partitioned 1d,7d,28d".into(),
        )
    })?;
    let length = |key: &str, text: &str| {
        parse_span(text).map_err(|error| Error::Usage(format!("{key}: {error}")))
    };
    let (span, every) = (length("--simulate", span)?, length("--every", &args.every)?);
    let simulation = simulate(&policy, span, every).map_err(Error::Usage)?;
    let Simulation {
        runs,
        kept,
        oldest,
        hole,
    } = &simulation;
    let settled = &kept[kept.len() / 2..];
    let (least, most) = (
        settled.iter().min().unwrap_or(&0),
        settled.iter().max().unwrap_or(&0),
    );
    Output::answer(&format!(
        "{runs} backups, one every {}: {least} to {most} versions stay in the second half of the time\n\
         the oldest is at most {} old, the largest hole between two is {}\n",
        words(every),
        days(*oldest),
        days(*hole)
    ))?;
    if let Some(path) = &args.output {
        let step = every.as_secs();
        let dots = (0..).zip(kept).map(|(number, kept)| Dot {
            seconds: number * step,
            value: *kept,
            is_whole: true,
            stays: true,
        });
        let picture = Picture {
            title: format!("versions that stay, with a backup every {}", words(every)),
            unit: "versions",
            dots: dots.collect(),
            lines: Vec::new(),
        };
        draw::draw(&picture, path)?;
        context.output.info(&format!("{} drawn", path.display()));
    }
    Ok(Exit::Done)
}

fn days(span: SignedDuration) -> String {
    let hours = span.as_hours();
    format!("{}.{} days", hours / 24, hours % 24 * 10 / 24)
}
