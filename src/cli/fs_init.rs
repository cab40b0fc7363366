//! `fs-init`: make the working directory of a source.

use super::Context;
use super::args::FsInit;
use super::exit::Exit;
use crate::catalog::StoreType;
use crate::config::workdir::{self, Workdir};
use crate::error::Error;

pub fn run(context: &Context, args: &FsInit) -> Result<Exit, Error> {
    workdir::normal(&args.src)?;
    let store_type = StoreType::from_word(&args.backup_type)
        .ok_or_else(|| Error::Usage(format!("unknown backup type: {}", args.backup_type)))?;
    let made = Workdir::create(&context.config_dir, &args.src, &args.name, store_type)?;
    context
        .output
        .info(&format!("created {}", made.path.display()));
    Ok(Exit::Done)
}
