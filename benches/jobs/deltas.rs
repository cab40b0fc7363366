//! Delta tools on their own: the time and the length of the delta from a set's second state back to its first. For
//! ours the time of the whole backup counts.

use super::data::{Data, Set, env};
use super::jobs::Plan;
use super::measure::{quiet, run as measured};
use super::report::{OURS, Results, Row};
use super::tools::{self, DELTA_TOOLS};

const JOB: &str = "delta of the first change";

/// Measures each delta tool that is there. Trees are compared as tar archives.
pub fn run(plan: &Plan, set: &Set, data: &Data, results: &mut Results) -> Result<(), String> {
    let (new, old) = (plan.work.join("new.tar"), plan.work.join("old.tar"));
    let delta = plan.work.join("delta");
    let pairs = env(&[
        ("NEW", &new),
        ("OLD", &old),
        ("DELTA", &delta),
        ("LIVE", &data.live),
        ("FIRST", &data.first),
    ]);
    let link = match set {
        Set::Image { .. } => "ln $LIVE/disk.img $NEW && ln $FIRST/disk.img $OLD",
        Set::Dump { .. } => "ln $LIVE/dump.sql $NEW && ln $FIRST/dump.sql $OLD",
        Set::Releases { .. } => {
            "tar -C $LIVE --sort=name -cf $NEW . && tar -C $FIRST --sort=name -cf $OLD ."
        }
        Set::Tree { .. } | Set::Small { .. } => return Ok(()),
    };
    quiet(link, &pairs)?;
    let name = format!("{}, delta", plan.name);
    ours(plan, &name, data, results)?;
    let bytes = old.metadata().map_err(|error| error.to_string())?.len();
    for tool in DELTA_TOOLS.iter().filter(|tool| bytes <= tool.max_bytes) {
        if tools::version(tool.version, plan.program).is_none() {
            results.missing.push(tool.name.to_owned());
            continue;
        }
        let cost = measured(tool.make, &pairs, plan.work, &plan.work.join("log"))?;
        if tool.compress {
            quiet(
                "zstd -q -3 -T0 --rm -f $DELTA -o $DELTA.zst && mv $DELTA.zst $DELTA",
                &pairs,
            )?;
        }
        let store = delta.metadata().map_err(|error| error.to_string())?.len();
        eprintln!(
            "{:>12}  delta {:<24} {:8.2} s  {store} bytes",
            plan.name, tool.name, cost.wall
        );
        results.rows.push(Row {
            set: name.clone(),
            job: JOB.to_owned(),
            tool: tool.name.to_owned(),
            store,
            cost,
        });
    }
    quiet("rm -f $NEW $OLD $DELTA", &pairs).map(drop)
}

/// A store of its own: in the other one files were touched before they were changed.
fn ours(plan: &Plan, name: &str, data: &Data, results: &mut Results) -> Result<(), String> {
    let dir = plan.work.join("ours-delta");
    let mut pairs = env(&[("DIR", &dir), ("LIVE", &data.live), ("FIRST", &data.first)]);
    pairs.push(("BTW".to_owned(), plan.program.to_owned()));
    pairs.push(("HOME".to_owned(), dir.join("home").display().to_string()));
    quiet(
        "mkdir -p $HOME/.btw-backup $DIR/store && echo ROOT_PATH = \\\"$DIR/store\\\" > $HOME/.btw-backup/config.toml && \
         cp -a --sparse=auto $FIRST $DIR/src && $BTW fs -q --init $DIR/src data && \
         rm -rf $DIR/src && cp -a --sparse=auto $LIVE $DIR/src",
        &pairs,
    )?;
    let log = plan.work.join("log");
    let cost = measured("$BTW fs -q $DIR/src data", &pairs, plan.work, &log)?;
    let said = quiet("cat $DIR/store/data/deltas/* | wc -c; rm -rf $DIR", &pairs)?;
    let store = said
        .trim()
        .parse()
        .map_err(|_| format!("wc said '{said}'"))?;
    eprintln!(
        "{:>12}  delta ours {:14.2} s  {store} bytes",
        plan.name, cost.wall
    );
    results.rows.push(Row {
        set: name.to_owned(),
        job: JOB.to_owned(),
        tool: OURS.to_owned(),
        store,
        cost,
    });
    Ok(())
}
