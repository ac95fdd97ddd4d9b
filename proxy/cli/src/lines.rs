//! The lines of audit records, as the command line names them.

use std::{
    io,
    path::{Path, PathBuf},
};

use proxy::observability::audit::read::{Line, Lines, segments};

/// Reads all lines of these files, and of the segments in these folders. Returns the number of files.
///
/// # Errors
/// If one cannot be read.
pub(super) fn each(paths: &[PathBuf], mut take: impl FnMut(Line<'_>)) -> Result<u64, String> {
    let mut read = 0;
    for path in paths {
        for file in files(path)? {
            read += 1;
            all(&file, &mut take).map_err(|error| cannot(&file, &error))?;
        }
    }
    Ok(read)
}

fn all(file: &Path, take: &mut impl FnMut(Line<'_>)) -> io::Result<()> {
    let mut lines = Lines::open(file)?;
    while let Some(line) = lines.next_line()? {
        let last = matches!(line, Line::Torn(_));
        take(line);
        if last {
            break;
        }
    }
    Ok(())
}

fn files(path: &Path) -> Result<Vec<PathBuf>, String> {
    match path.is_dir() {
        true => segments(path).map_err(|error| cannot(path, &error)),
        false => Ok(vec![path.to_owned()]),
    }
}

fn cannot(path: &Path, error: &io::Error) -> String {
    format!("cannot read `{}`: {error}", path.display())
}
