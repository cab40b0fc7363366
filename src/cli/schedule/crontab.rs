//! A line in the user's crontab.

use super::super::Context;
use super::super::exit::Exit;
use super::super::output::Output;
use super::super::rows::shell_words;
use super::{Plan, must, tool};
use crate::error::Error;

/// Our line ends in this.
const MARK: &str = "# btw-backup schedule";
/// Cron knows hardly any place where programs are.
const SEARCH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

fn line(plan: &Plan) -> String {
    let mut args = vec![plan.program.clone().into_os_string()];
    if let Some(dir) = &plan.config_dir {
        args.extend(["--config-dir".into(), dir.clone().into_os_string()]);
    }
    args.extend(["--quiet".into(), "run".into()]);
    // For cron a percent sign is the end of a line.
    let command = shell_words(&args).replace('%', "\\%");
    let (minute, hour) = (plan.at.minute(), plan.at.hour());
    format!("{minute} {hour} * * * {SEARCH} {command} {MARK}")
}

/// The crontab; empty if there is none.
fn current() -> Result<String, Error> {
    let ended = tool("crontab", &["-l"], "")?;
    let is_none = ended
        .said
        .iter()
        .any(|line| line.contains("no crontab for"));
    if !ended.end.is_success() && !is_none {
        // It must not be replaced by one that lacks what could not be read.
        return Err(Error::Refused(format!(
            "crontab -l {}: {}",
            ended.end.words(),
            ended.said.join(" ")
        )));
    }
    String::from_utf8(ended.out).map_err(|_| {
        Error::Refused(
            "the crontab is not UTF-8: write the line yourself; --dry-run shows it".into(),
        )
    })
}

fn without_ours(table: &str) -> String {
    let others = table
        .lines()
        .filter(|line| !line.trim_end().ends_with(MARK));
    others.flat_map(|line| [line, "\n"]).collect()
}

pub fn install(context: &Context, plan: &Plan, dry_run: bool) -> Result<Exit, Error> {
    let line = line(plan);
    if dry_run {
        Output::answer(&format!("# crontab\n{line}\n"))?;
        return Ok(Exit::Done);
    }
    let table = format!("{}{line}\n", without_ours(&current()?));
    must("crontab", &["-"], &table)?;
    context
        .output
        .info(&format!("written into the crontab: {line}"));
    Ok(Exit::Done)
}

pub fn remove(context: &Context, dry_run: bool) -> Result<bool, Error> {
    let Some(line) = installed()? else {
        return Ok(false);
    };
    let word = if dry_run {
        "would be removed"
    } else {
        "removed"
    };
    context.output.info(&format!("{word}: {line}"));
    if !dry_run {
        let rest = without_ours(&current()?);
        if rest.is_empty() {
            must("crontab", &["-r"], "")?;
        } else {
            must("crontab", &["-"], &rest)?;
        }
    }
    Ok(true)
}

/// Our line, if it is there.
pub fn installed() -> Result<Option<String>, Error> {
    // Where there is no cron there is no line.
    if !is_there() {
        return Ok(None);
    }
    let table = current()?;
    let ours = table.lines().find(|line| line.trim_end().ends_with(MARK));
    Ok(ours.map(str::to_owned))
}

fn is_there() -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join("crontab").exists())
}

#[cfg(test)]
mod tests {
    use super::{line, without_ours};
    use crate::cli::schedule::Plan;
    use std::path::PathBuf;

    #[test]
    fn the_line_survives_cron_and_the_shell() {
        let plan = Plan {
            program: PathBuf::from("/opt/a b/btw-backup"),
            config_dir: Some(PathBuf::from("/x/100%'")),
            at: jiff::civil::time(3, 5, 0, 0),
            places: Vec::new(),
            has_programs: false,
            is_root: true,
        };
        let line = line(&plan);
        assert!(line.starts_with("5 3 * * * PATH="), "{line}");
        assert!(
            line.contains(" '/opt/a b/btw-backup' --config-dir '/x/100\\%'\\''' --quiet run #"),
            "{line}"
        );
        let table = format!("# mine\n0 1 * * * other # btw-backup\n{line}\n");
        assert_eq!(
            without_ours(&table),
            "# mine\n0 1 * * * other # btw-backup\n"
        );
    }
}
