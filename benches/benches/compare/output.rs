//! Files that are written, and read again.

use std::fs;
use std::path::{Path, PathBuf};

use benches::comparison::Comparison;

use crate::Error;
use crate::args::Args;

/// Writes what was found to where it was asked for.
pub(crate) fn write(found: &Comparison, args: &Args) -> Result<(), Error> {
    if let Some(path) = &args.json {
        let text = serde_json::to_string(found).map_err(json_error(path))?;
        write_file(path, &text)?;
    }
    if let Some(path) = &args.svg {
        write_file(path, &found.svg())?;
    }
    match &args.markdown {
        Some(path) => write_file(path, &found.markdown())?,
        None => print!("{}", found.markdown()),
    }
    Ok(())
}

/// Joins what was written with `--json`.
pub(crate) fn read(first: &Path, more: &[PathBuf]) -> Result<Comparison, Error> {
    let mut found = read_file(first)?;
    for path in more {
        found.join(read_file(path)?).map_err(|source| Error::Join {
            path: path.clone(),
            source,
        })?;
    }
    Ok(found)
}

fn write_file(path: &Path, text: &str) -> Result<(), Error> {
    fs::write(path, text).map_err(|source| Error::File {
        path: path.to_owned(),
        source,
    })
}

fn read_file(path: &Path) -> Result<Comparison, Error> {
    let text = fs::read_to_string(path).map_err(|source| Error::File {
        path: path.to_owned(),
        source,
    })?;
    serde_json::from_str(&text).map_err(json_error(path))
}

fn json_error(path: &Path) -> impl FnOnce(serde_json::Error) -> Error {
    let path = path.to_owned();
    |source| Error::Json { path, source }
}
