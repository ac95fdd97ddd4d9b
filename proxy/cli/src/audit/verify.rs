//! `stagedoor audit verify`: walks the segments of a folder, and names the first line that is wrong.

use std::{
    fmt::Display,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use filters::audit::{
    chain::Link,
    checkpoint::PublicKey,
    verify::{Beginning, Fault, Verifier},
};
use rustls_pki_types::{SubjectPublicKeyInfoDer, pem::PemObject};

use crate::say::out;
use proxy::observability::audit::read::{Line, Lines, segments, stem};

/// Verify that no record was changed, removed or inserted.
#[derive(Args)]
pub(super) struct Verify {
    /// The folder with the segments.
    folder: PathBuf,
    /// The digest of the last line, as kept elsewhere. If it is missing, the end was cut off.
    #[arg(long)]
    anchor: Option<String>,
    /// The public key of the checkpoints (PEM, as `openssl pkey -pubout` prints it). Everything before the
    /// last checkpoint must be as it was signed. May be repeated if keys were changed.
    #[arg(long)]
    key: Vec<PathBuf>,
    /// Accept missing oldest segments, even if no pruning on record explains it: for partial copies of a log,
    /// and for logs from before prunings were recorded.
    #[arg(long)]
    partial: bool,
}

/// Where something is wrong.
#[derive(Clone)]
struct Wrong {
    path: PathBuf,
    line: u64,
    byte: u64,
    fault: String,
}

impl Verify {
    pub(super) fn run(self) -> ExitCode {
        match self.verified() {
            Ok(code) => code,
            Err(misuse) => {
                crate::say::err(format_args!("{misuse}"));
                ExitCode::from(2)
            }
        }
    }

    fn verified(self) -> Result<ExitCode, String> {
        let anchor = self.anchor.as_ref().map(|text| Link::from_hex(text.as_bytes()));
        if anchor == Some(None) {
            return Err(
                "an anchor is 64 hex digits in lower case: the `chain` of a line".to_owned()
            );
        }
        let keys = self.key.iter().map(|file| public_key(file)).collect::<Result<Vec<_>, _>>()?;
        let folder = self.folder.display();
        let paths = segments(&self.folder).map_err(|e| format!("cannot read `{folder}`: {e}"))?;
        if paths.is_empty() {
            return Err(format!("`{folder}` has no segments (`audit-*.jsonl`)"));
        }
        Ok(match self.walk(&paths, keys, anchor.flatten()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(Wrong { path, line, byte, fault }) => {
                crate::say::out(format_args!("{}:{line} (byte {byte}): {fault}", path.display()));
                ExitCode::from(1)
            }
        })
    }

    /// Goes through all segments, oldest first.
    fn walk(
        &self,
        paths: &[PathBuf],
        keys: Vec<PublicKey>,
        anchor: Option<Link>,
    ) -> Result<(), Wrong> {
        let signed = !keys.is_empty();
        let begun: Vec<(&PathBuf, Beginning)> = paths
            .iter()
            .filter_map(|path| Some((path, beginning(path).transpose()?)))
            .map(|(path, read)| read.map(|read| (path, read)))
            .collect::<Result<_, _>>()?;
        // A process that is killed immediately leaves an incomplete first line.
        let mut torn = (paths.len() - begun.len()) as u64;
        let mut verifier = Verifier::new(begun.iter().map(|(_, beginning)| beginning), keys);
        let mut anchored = anchor.is_none();
        for (path, beginning) in &begun {
            verifier.begin(beginning).map_err(|fault| Wrong::first(path, &fault))?;
            torn += u64::from(lines(path, &mut verifier, |verifier| {
                anchored = anchored || anchor.is_some_and(|anchor| verifier.is_at(&anchor));
            })?);
        }
        if let Some((path, _)) = begun.iter().find(|(_, b)| verifier.is_missing_before(b)) {
            return Err(Wrong::first(path, &Fault::Missing));
        }
        if let Some((path, beginning)) = begun.first()
            && !self.partial
            && !beginning.is_the_first()
            && !stem(path).is_some_and(|segment| verifier.was_pruned_to(segment))
        {
            return Err(Wrong::first(path, &BEGINNING_MISSING));
        }
        let newest = paths.last().expect("there is one");
        if !anchored {
            let fault = "no line has the anchor's digest: the end was cut off";
            return Err(Wrong::first(newest, &fault));
        }
        if signed && verifier.counted.checkpoints == 0 {
            return Err(Wrong::first(newest, &"no checkpoint is signed with the key"));
        }
        report(&verifier, signed, anchor.is_some(), torn);
        Ok(())
    }
}

const BEGINNING_MISSING: &str = "segments before this one are missing, and no pruning on record explains it; use `--partial` if you copied only a part";

/// Reports what was verified, and what the folder alone cannot show.
fn report(verifier: &Verifier, signed: bool, anchored: bool, torn: u64) {
    let (c, counted) = (verifier.counted, super::super::counted);
    out(format_args!(
        "{} and {} verified; {} and {} among them",
        counted(c.segments, "segment"),
        counted(c.lines, "line"),
        counted(c.intents, "intent"),
        counted(c.lost, "lost record"),
    ));
    if signed {
        out(format_args!(
            "{} signed; {} after the last",
            counted(c.checkpoints, "checkpoint"),
            counted(verifier.unsigned(), "line")
        ));
    }
    if torn > 0 {
        let torn = counted(torn, "last line");
        out(format_args!("{torn} incomplete, as when a process is killed"));
    }
    if c.killed > 0 {
        let killed = match c.killed {
            1 => "1 process was killed".to_owned(),
            many => format!("{many} processes were killed"),
        };
        out(format_args!("{killed}: records that were not written yet are lost"));
    }
    out(format_args!("last {}", verifier.last()));
    if !verifier.has_ended() {
        out(format_args!(
            "the last process still runs, was killed, or its last lines were removed"
        ));
    }
    if !anchored {
        out(format_args!(
            "not known: whether lines were cut off at the end; keep `last` in another place and verify with `--anchor`"
        ));
    }
    if !signed {
        out(format_args!(
            "not known: whether everything was rewritten; sign the chain (`audit.checkpoints`) and verify with `--key`"
        ));
    }
}

fn public_key(file: &Path) -> Result<PublicKey, String> {
    let pem = certs::bytes(file).map_err(|error| error.to_string())?;
    let key = SubjectPublicKeyInfoDer::from_pem_slice(&pem).ok();
    key.and_then(|key| PublicKey::of_spki(&key)).ok_or_else(|| {
        let file = file.display();
        format!(
            "`{file}` is not an Ed25519 public key in PEM; `openssl pkey -in KEY -pubout` makes it"
        )
    })
}

/// The first line of a segment; `None` if it is incomplete.
fn beginning(path: &Path) -> Result<Option<Beginning>, Wrong> {
    let first = |why: &dyn Display| Wrong::first(path, why);
    let mut lines = Lines::open(path).map_err(|error| first(&error))?;
    match lines.next_line().map_err(|error| first(&error))? {
        None | Some(Line::Torn(_)) => Ok(None),
        Some(Line::Whole(line)) => Beginning::of(line).map(Some).map_err(|fault| first(&fault)),
        Some(Line::TooLong) => Err(first(&Fault::NoBeginning)),
    }
}

/// Verifies the lines of a segment; returns whether the last is incomplete.
fn lines(
    path: &Path,
    verifier: &mut Verifier,
    mut after_each: impl FnMut(&Verifier),
) -> Result<bool, Wrong> {
    let mut lines = Lines::open(path).map_err(|error| Wrong::first(path, &error))?;
    loop {
        let (line, byte) = (lines.number, lines.byte);
        let told = |why: &dyn Display| Wrong { line, byte, ..Wrong::first(path, why) };
        match lines.next_line().map_err(|error| told(&error))? {
            None => return Ok(false),
            Some(Line::Torn(_)) => return Ok(true),
            Some(Line::TooLong) => return Err(told(&Fault::NotSealed)),
            Some(Line::Whole(whole)) => verifier.line(whole).map_err(|fault| told(&fault))?,
        }
        after_each(verifier);
    }
}

impl Wrong {
    fn first(path: &Path, fault: &dyn Display) -> Self {
        Self { path: path.to_owned(), line: 1, byte: 0, fault: fault.to_string() }
    }
}
