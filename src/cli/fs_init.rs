//! `fs-init`: make the working directory of a source.

use super::args::FsInit;
use super::exit::Exit;
use super::{Context, document};
use crate::config::workdir::{self, Workdir};
use crate::error::{Error, printable};

pub fn run(context: &Context, args: &FsInit) -> Result<Exit, Error> {
    workdir::normal(&args.src)?;
    let made = Workdir::create(&context.config_dir, &args.src, &args.name, args.store_type)?;
    context
        .output
        .info(&format!("created {}", made.path.display()));
    document::answer(
        &serde_json::json!({ "directory": printable(made.path.as_os_str().as_encoded_bytes()) }),
    );
    Ok(Exit::Done)
}
