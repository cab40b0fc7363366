//! `completions`, `man`, `schema`: what this program knows of itself.

use std::path::{Path, PathBuf};

use clap::CommandFactory as _;
use clap_complete::Shell;
use clap_mangen::Man;

use super::Context;
use super::args::Args;
use super::document::{JSON_SCHEMA, answer};
use super::exit::Exit;
use super::output::Output;
use crate::config;
use crate::error::Error;

#[derive(clap::Args)]
pub struct Completions {
    /// For which shell
    shell: Shell,
}

#[derive(clap::Args)]
pub struct ManPages {
    /// Write all pages into this directory [default: show the main one]
    dir: Option<PathBuf>,
}

pub fn completions(context: &Context, args: &Completions) -> Result<Exit, Error> {
    context.output.refuse_json()?;
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Args::command(), "btw-backup", &mut script);
    Output::answer(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}

pub fn schema() -> Result<Exit, Error> {
    // It is an answer for programs in any case.
    let schema: serde_json::Value = serde_json::from_str(JSON_SCHEMA).expect("it is tested");
    answer(&serde_json::json!({ "json_schema": schema }));
    if !super::document::is_begun() {
        Output::answer(JSON_SCHEMA)?;
    }
    Ok(Exit::Done)
}

pub fn man(context: &Context, args: &ManPages) -> Result<Exit, Error> {
    let pages = pages()?;
    let Some(dir) = &args.dir else {
        context.output.refuse_json()?;
        Output::answer(&pages[0].1)?;
        return Ok(Exit::Done);
    };
    std::fs::create_dir_all(dir).map_err(|error| Error::file("create", dir, error))?;
    for (name, text) in &pages {
        config::write_for(&dir.join(name), text, 0o644)?;
    }
    context.output.info(&format!(
        "{} pages written to {}",
        pages.len(),
        dir.display()
    ));
    Ok(Exit::Done)
}

/// Every page: its file's name and text.
fn pages() -> Result<Vec<(String, String)>, Error> {
    let mut command = Args::command();
    command.build();
    let mut pages = Vec::new();
    add(&command, "btw-backup", &mut pages)?;
    Ok(pages)
}

fn add(
    command: &clap::Command,
    name: &str,
    pages: &mut Vec<(String, String)>,
) -> Result<(), Error> {
    let title = name.replace(' ', "-");
    let mut page = Vec::new();
    // The version would make every page another one with each release.
    let man = Man::new(command.clone())
        .title(title.clone())
        .source("btw-backup")
        .manual("btw-backup");
    man.render(&mut page)
        .map_err(|error| Error::file("write", Path::new(&title), error))?;
    let text = String::from_utf8_lossy(&page).into_owned();
    pages.push((format!("{title}.1"), text));
    let below = command
        .get_subcommands()
        .filter(|below| below.get_name() != "help");
    for below in below {
        add(below, &format!("{name} {}", below.get_name()), pages)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::pages;

    #[test]
    fn the_pages_of_the_package_are_those_of_this_program() {
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src/package/man");
        let pages = pages().unwrap();
        for (name, text) in &pages {
            let packaged = std::fs::read_to_string(dir.join(name)).unwrap_or_default();
            assert!(
                *text == packaged,
                "{name} is not up to date: cargo run -- man src/package/man"
            );
        }
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), pages.len());
    }
}
