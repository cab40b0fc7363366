//! `export`: the tar archive of a version.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::args::Export;
use super::exit::Exit;
use super::progress::Progress;
use super::{Context, stores};
use crate::catalog::version::describe;
use crate::error::Error;
use crate::ops::read;

pub fn run(context: &Context, args: &Export) -> Result<Exit, Error> {
    let read = stores::open_to_read(context, &args.reading)?;
    let index = read.index(context, &args.at.at)?;
    let export = |out: &mut dyn Write, name: &Path| {
        let progress = Progress::new(context.output);
        read::export(&read.store, &read.versions, index, out, name, &progress)
    };
    if args.file == Path::new("-") {
        context.output.refuse_json()?;
        // Unlike a listing, an archive that nobody took whole is a failure.
        let mut out = BufWriter::new(std::io::stdout().lock());
        export(&mut out, Path::new("the standard output"))?;
        return Ok(Exit::Done);
    }
    let out = create(&args.file)?;
    let sync = |()| {
        out.sync_all()
            .map_err(|error| Error::file("sync", &args.file, error))
    };
    export(&mut &out, &args.file)
        .and_then(sync)
        .inspect_err(|_| {
            // Half an archive is worse than none.
            let _ = fs::remove_file(&args.file);
        })?;
    context.output.info(&format!(
        "{}: {} exported to {}",
        args.reading.dst,
        describe(&read.versions[index]),
        args.file.display()
    ));
    Ok(Exit::Done)
}

/// A new file for its owner alone: an archive holds what not everybody may read.
fn create(path: &Path) -> Result<File, Error> {
    File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| Error::file("create", path, error))
}
