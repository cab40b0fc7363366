//! Snapshots of EBS volumes, by the user's own `aws` program: its keys, profiles and roles are used as they are.

use std::process::Command;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;

use crate::error::Error;
use crate::plan::snapshots::Snapshot;
use crate::process::{self, Limits};

/// A call that takes longer is given up.
const TIMEOUT: Duration = Duration::from_mins(10);

/// The `aws` program, and how it is called.
pub struct Aws<'a> {
    /// A profile of it.
    pub profile: Option<&'a str>,
    /// The region.
    pub region: Option<&'a str>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    snapshots: Vec<Described>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Described {
    snapshot_id: String,
    volume_id: String,
    state: String,
    start_time: Timestamp,
    #[serde(default)]
    description: String,
}

impl From<Described> for Snapshot {
    fn from(described: Described) -> Self {
        Self {
            id: described.snapshot_id,
            volume: described.volume_id,
            status: described.state,
            time: described.start_time,
            description: described.description,
        }
    }
}

impl Aws<'_> {
    /// All snapshots of these volumes that belong to the account.
    pub fn snapshots<'a>(
        &self,
        volumes: impl Iterator<Item = &'a String>,
    ) -> Result<Vec<Snapshot>, Error> {
        let volumes: Vec<&str> = volumes.map(String::as_str).collect();
        let filter = format!("Name=volume-id,Values={}", volumes.join(","));
        let args = [
            "describe-snapshots",
            "--owner-ids",
            "self",
            "--filters",
            &filter,
        ];
        let listed: Listed = self.call(&args)?;
        Ok(listed.snapshots.into_iter().map(Snapshot::from).collect())
    }

    /// Begins a snapshot.
    pub fn create(&self, volume: &str, description: &str) -> Result<Snapshot, Error> {
        let described: Described = self.call(&[
            "create-snapshot",
            "--volume-id",
            volume,
            "--description",
            description,
        ])?;
        Ok(described.into())
    }

    /// Deletes a snapshot.
    pub fn delete(&self, id: &str) -> Result<(), Error> {
        self.run(&["delete-snapshot", "--snapshot-id", id])
            .map(drop)
    }

    fn call<T: for<'de> Deserialize<'de>>(&self, args: &[&str]) -> Result<T, Error> {
        let out = self.run(args)?;
        serde_json::from_slice(&out).map_err(|error| {
            Error::Program(format!(
                "aws {}: its answer cannot be understood: {error}",
                args[0]
            ))
        })
    }

    fn run(&self, args: &[&str]) -> Result<Vec<u8>, Error> {
        let mut command = Command::new("aws");
        command.env("AWS_PAGER", "").arg("ec2").args(args);
        command.args(["--output", "json"]);
        for (name, value) in [("--profile", self.profile), ("--region", self.region)] {
            command.args(value.map(|value| [name, value]).into_iter().flatten());
        }
        let limits = Limits {
            timeout: Some(TIMEOUT),
            stop: &AtomicUsize::new(0),
        };
        let ended = process::run(&mut command, &[], &limits, &mut |_| {});
        let ended = ended.map_err(|error| {
            Error::Program(format!(
                "Cannot run aws: {error}; the AWS command-line tool is needed"
            ))
        })?;
        if ended.end.is_success() {
            return Ok(ended.out);
        }
        let said = ended.said.iter().filter(|line| !line.is_empty());
        let said: Vec<&str> = said.map(String::as_str).collect();
        Err(Error::Program(format!(
            "aws {} {}: {}",
            args[0],
            ended.end.words(),
            said.join(" ")
        )))
    }
}
