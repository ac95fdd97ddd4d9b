//! `stagedoor audit verify`: walks the segments of a folder, and names the first line that is wrong.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use filters::audit::{
    chain::Link,
    verify::{Beginning, Fault, Verifier},
};

use crate::audit::segment::segments;

/// Tell whether records were changed, removed or put between.
#[derive(Args)]
pub(super) struct Verify {
    /// The folder of the segments.
    folder: PathBuf,
    /// The digest of the last line, as it was kept elsewhere: it must be there, or the end was cut
    /// off.
    #[arg(long)]
    anchor: Option<String>,
}

/// Where something is wrong.
struct Wrong {
    path: PathBuf,
    line: u64,
    byte: u64,
    fault: String,
}

const BUFFER: usize = 1 << 20;

impl Verify {
    pub(super) fn run(self) -> ExitCode {
        let anchor = self.anchor.as_ref().map(|text| Link::from_hex(text.as_bytes()));
        if anchor == Some(None) {
            eprintln!("an anchor is 64 hex digits in lower case: the `chain` of a line");
            return ExitCode::from(2);
        }
        let paths = match segments(&self.folder) {
            Ok(paths) if !paths.is_empty() => paths,
            Ok(_) => {
                eprintln!("`{}` has no segments (`audit-*.jsonl`)", self.folder.display());
                return ExitCode::from(2);
            }
            Err(error) => {
                eprintln!("cannot read `{}`: {error}", self.folder.display());
                return ExitCode::from(2);
            }
        };
        match walk(&paths, anchor.flatten()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(Wrong { path, line, byte, fault }) => {
                println!("{}:{line} (byte {byte}): {fault}", path.display());
                ExitCode::from(1)
            }
        }
    }
}

fn walk(paths: &[PathBuf], anchor: Option<Link>) -> Result<(), Wrong> {
    let mut beginnings = Vec::with_capacity(paths.len());
    for path in paths {
        let mut first = Vec::new();
        let wrong = |fault: String| Wrong { path: path.clone(), line: 1, byte: 0, fault };
        let mut file = open(path).map_err(wrong)?;
        file.read_until(b'\n', &mut first).map_err(|error| wrong(error.to_string()))?;
        first.pop();
        beginnings.push(Beginning::of(&first).map_err(|fault| wrong(fault.to_string()))?);
    }
    let mut verifier = Verifier::new(&beginnings);
    let (mut torn, mut anchored) = (0, anchor.is_none());
    for (path, beginning) in paths.iter().zip(&beginnings) {
        let mut file =
            open(path).map_err(|fault| Wrong { path: path.clone(), line: 1, byte: 0, fault })?;
        let (mut number, mut byte, mut line) = (1, 0, Vec::new());
        let wrong =
            |line: u64, byte: u64, fault: String| Wrong { path: path.clone(), line, byte, fault };
        verifier.begin(beginning).map_err(|fault| wrong(1, 0, fault.to_string()))?;
        loop {
            line.clear();
            let read = file.read_until(b'\n', &mut line);
            let read = read.map_err(|error| wrong(number, byte, error.to_string()))?;
            let Some(whole) = line.strip_suffix(b"\n") else {
                torn += u64::from(read > 0);
                break;
            };
            verifier.line(whole).map_err(|fault| wrong(number, byte, fault.to_string()))?;
            anchored = anchored || anchor.is_some_and(|anchor| verifier.is_at(&anchor));
            number += 1;
            byte += read as u64;
        }
    }
    let last = paths.last().expect("there is one").clone();
    let at_end =
        |fault: Fault| Wrong { path: last.clone(), line: 1, byte: 0, fault: fault.to_string() };
    let link = verifier.end().map_err(at_end)?;
    if !anchored {
        let fault = "no line has the digest of the anchor: the end was cut off".to_owned();
        return Err(Wrong { path: last, line: 1, byte: 0, fault });
    }
    let c = verifier.counted;
    println!(
        "{} and {} hold; {} and {} among them",
        super::super::counted(c.segments, "segment"),
        super::super::counted(c.lines, "line"),
        super::super::counted(c.intents, "intent"),
        super::super::counted(c.lost, "lost record"),
    );
    if torn > 0 {
        println!(
            "{} not written whole, as when a process is killed",
            super::super::counted(torn, "last line")
        );
    }
    println!("last {link}");
    Ok(())
}

fn open(path: &Path) -> Result<BufReader<File>, String> {
    let file = File::open(path).map_err(|error| error.to_string())?;
    Ok(BufReader::with_capacity(BUFFER, file))
}
