//! `ebs`: snapshots of EBS volumes, as many as are to stay.

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::exit::Exit;
use super::output::Output;
use super::{Context, document, stores};
use crate::config::ebs::EbsConfig;
use crate::error::{Error, printable, with_causes};
use crate::ops::ebs::Aws;
use crate::plan::snapshots::{Plan, Rule, Snapshot, day, plan};
use crate::time::rfc3339;

#[derive(clap::Args)]
pub struct Ebs {
    #[command(subcommand)]
    task: Task,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::Subcommand)]
enum Task {
    /// Show the snapshots of all volumes
    Status,
    /// Make a snapshot of each volume that has none of today, and delete old ones
    Backup,
    /// Only say what backup would do
    Dryrun,
}

#[derive(Serialize)]
struct VolumeRow<'a> {
    volume: &'a str,
    description: &'a str,
    snapshots: Vec<SnapshotRow>,
    created: Option<String>,
    deleted: Vec<String>,
    /// Why none was made.
    note: Option<String>,
}

#[derive(Serialize)]
struct SnapshotRow {
    snapshot: String,
    status: String,
    timestamp: String,
}

/// A volume and its snapshots, the newest first.
struct Volume<'a> {
    id: &'a str,
    description: &'a str,
    snapshots: Vec<Snapshot>,
}

/// A snapshot that takes longer needs a look.
const STUCK: SignedDuration = SignedDuration::from_hours(24);

/// What is done for a volume.
struct Doing<'a> {
    volume: &'a Volume<'a>,
    /// Made, and now these go.
    doomed: Option<Vec<&'a Snapshot>>,
    row: VolumeRow<'a>,
}

pub fn run(context: &Context, args: &Ebs) -> Result<Exit, Error> {
    let general = stores::existing_config(context)?;
    let config = general.ebs.ok_or_else(|| {
        Error::Usage("no volume is configured: write [ebs] and volumes = { \"vol-...\" = \"what it is\" } into config.toml".into())
    })?;
    let config = config.map_err(Error::Usage)?;
    if config.volumes.is_empty() {
        return Err(Error::Usage("[ebs] names no volumes".into()));
    }
    let aws = Aws {
        profile: config.profile.as_deref(),
        region: config.region.as_deref(),
    };
    let mut all = aws.snapshots(config.volumes.keys())?;
    all.sort_by(|a, b| (b.time, &b.id).cmp(&(a.time, &a.id)));
    let volumes = volumes(&config, &all);
    if args.task == Task::Dryrun {
        Output::answer("*** DRY RUN ***\n")?;
    }
    Output::answer(&table(&volumes))?;
    let mut exit = warn_of_failed(&all);
    let mut doings: Vec<Doing<'_>> = volumes.iter().map(Doing::nothing).collect();
    if args.task != Task::Status {
        let worker = Worker {
            aws: &aws,
            rule: &config.rule,
            is_real: args.task == Task::Backup,
            now: Timestamp::now(),
        };
        Output::answer("\nCREATING SNAPSHOTS\n")?;
        for doing in &mut doings {
            exit = exit.or(worker.create(doing)?);
        }
        Output::answer("\nDELETING OLD SNAPSHOTS\n")?;
        for doing in &mut doings {
            exit = exit.or(worker.delete(doing)?);
        }
        Output::answer("\nDone.\n")?;
    }
    let rows: Vec<VolumeRow<'_>> = doings.into_iter().map(|doing| doing.row).collect();
    document::answer(&serde_json::json!({ "volumes": rows }));
    Ok(exit)
}

fn volumes<'a>(config: &'a EbsConfig, all: &[Snapshot]) -> Vec<Volume<'a>> {
    let of = |id: &str| {
        let own = all.iter().filter(|snapshot| snapshot.volume == id);
        own.cloned().collect()
    };
    let volumes = config.volumes.iter().map(|(id, description)| Volume {
        id,
        description,
        snapshots: of(id),
    });
    volumes.collect()
}

/// One that has failed is of no use, and would be taken for one.
fn warn_of_failed(all: &[Snapshot]) -> Exit {
    let mut exit = Exit::Done;
    for snapshot in all.iter().filter(|snapshot| snapshot.has_failed()) {
        let (id, volume) = (&snapshot.id, &snapshot.volume);
        Output::warning(&format!(
            "the snapshot {id} of {volume} has failed; it does not count: aws ec2 delete-snapshot --snapshot-id {id}"
        ));
        exit = Exit::Warnings;
    }
    exit
}

fn table(volumes: &[Volume<'_>]) -> String {
    let mut text = "VOLUME\tSNAPSHOT\tSTATUS\tDATE\tDESC\n".to_owned();
    for volume in volumes {
        let description = printable(volume.description.as_bytes());
        if volume.snapshots.is_empty() {
            text.push_str(&format!("{}\t-\t-\t-\t{description}\n", volume.id));
        }
        for snapshot in &volume.snapshots {
            let (id, status, day) = (&snapshot.id, &snapshot.status, day(snapshot.time));
            text.push_str(&format!(
                "{}\t{id}\t{status}\t{day}\t{description}\n",
                volume.id
            ));
        }
    }
    text
}

impl<'a> Doing<'a> {
    fn nothing(volume: &'a Volume<'a>) -> Self {
        let snapshots = volume.snapshots.iter().map(|snapshot| SnapshotRow {
            snapshot: snapshot.id.clone(),
            status: snapshot.status.clone(),
            timestamp: rfc3339(snapshot.time),
        });
        let row = VolumeRow {
            volume: volume.id,
            description: volume.description,
            snapshots: snapshots.collect(),
            created: None,
            deleted: Vec::new(),
            note: None,
        };
        Self {
            volume,
            doomed: None,
            row,
        }
    }
}

struct Worker<'a> {
    aws: &'a Aws<'a>,
    rule: &'a Rule,
    is_real: bool,
    now: Timestamp,
}

impl Worker<'_> {
    /// Makes one volume's snapshot, if it is to have one. What fails is said, and nothing of this volume is deleted.
    fn create(&self, doing: &mut Doing<'_>) -> Result<Exit, Error> {
        let (id, description) = (doing.volume.id, doing.volume.description);
        let mut exit = Exit::Done;
        let note = match plan(&doing.volume.snapshots, self.rule, self.now) {
            Err(why) => {
                Output::warning(&format!("{id}: {why}"));
                return Ok(Exit::Failed);
            }
            Ok(Plan::Today(today)) => {
                format!(
                    "{id} has already snapshot {} for today \"{description}\"",
                    today.id
                )
            }
            Ok(Plan::Pending(pending)) => {
                if self.now.duration_since(pending.time) > STUCK {
                    Output::warning(&format!(
                        "{id}: {} is pending since {}; until it is complete no other is made",
                        pending.id,
                        day(pending.time)
                    ));
                    exit = Exit::Warnings;
                }
                format!("{id} has pending snapshot {} \"{description}\"", pending.id)
            }
            Ok(Plan::Make(doomed)) => {
                Output::answer(&format!("creating snapshot for {id} \"{description}\"\n"))?;
                if self.is_real {
                    match self.aws.create(id, description) {
                        Ok(created) => doing.row.created = Some(created.id),
                        Err(error) => {
                            Output::error_of(id, &error);
                            doing.row.note = Some(with_causes(&error));
                            return Ok(Exit::Failed);
                        }
                    }
                }
                doing.doomed = Some(doomed);
                return Ok(Exit::Done);
            }
        };
        Output::answer(&format!("{note}\n"))?;
        doing.row.note = Some(note);
        Ok(exit)
    }

    fn delete(&self, doing: &mut Doing<'_>) -> Result<Exit, Error> {
        let (volume, description) = (doing.volume.id, doing.volume.description);
        let mut exit = Exit::Done;
        for snapshot in doing.doomed.take().unwrap_or_default() {
            let (id, day) = (&snapshot.id, day(snapshot.time));
            Output::answer(&format!(
                "deleting {id} {day} for {volume} ({description})\n"
            ))?;
            if self.is_real
                && let Err(error) = self.aws.delete(id)
            {
                // The next run tries again.
                Output::error_of(id, &error);
                exit = Exit::Warnings;
                continue;
            }
            if self.is_real {
                doing.row.deleted.push(id.clone());
            }
        }
        Ok(exit)
    }
}
