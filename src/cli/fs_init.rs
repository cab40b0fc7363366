//! `fs-init`: make the working directory of a source.

use super::Context;
use super::args::FsInit;
use super::exit::Exit;
use crate::config::workdir::{self, Workdir};
use crate::error::Error;

pub fn run(context: &Context, args: &FsInit) -> Result<Exit, Error> {
    workdir::normal(&args.src)?;
    let made = Workdir::create(&context.config_dir, &args.src, &args.name, args.store_type)?;
    context
        .output
        .info(&format!("created {}", made.path.display()));
    Ok(Exit::Done)
}
