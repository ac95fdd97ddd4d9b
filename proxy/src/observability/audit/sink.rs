//! Where records go: a folder, or standard output.

use std::io::{self, Write};

use super::{
    Head,
    chain::Chain,
    folder::{Folder, Unwritten},
};

pub(super) enum Sink {
    Stdout { run: String, chain: Chain },
    Folder(Folder),
}

impl Sink {
    /// Seals lines and writes them. Each is written whole or not at all.
    pub(super) fn write(&mut self, lines: &[u8]) -> Result<(), Unwritten> {
        match self {
            Self::Folder(folder) => folder.write(lines),
            Self::Stdout { chain, .. } => {
                let (sealed, place) = chain.seal(lines);
                print(&sealed).map_err(|error| Unwritten { kept: 0, error })?;
                chain.place = place;
                Ok(())
            }
        }
    }

    /// Signs what is not signed yet.
    pub(super) fn checkpoint(&mut self) -> io::Result<()> {
        match self {
            Self::Folder(folder) => folder.checkpoint(),
            Self::Stdout { chain, .. } => {
                let Some((line, place)) = chain.checkpoint() else { return Ok(()) };
                print(&line)?;
                chain.place = place;
                Ok(())
            }
        }
    }

    /// Whether lines have waited long enough for that.
    pub(super) fn is_due(&self) -> bool {
        self.chain().is_due()
    }

    /// Makes what was written durable, as far as possible.
    pub(super) fn sync(&self) -> io::Result<()> {
        match self {
            Self::Folder(folder) => folder.sync(),
            Self::Stdout { .. } => Ok(()),
        }
    }

    /// Ensures that there is a segment, and room in it. `false` if only a write can show that.
    pub(super) fn reserve(&mut self) -> io::Result<bool> {
        match self {
            Self::Folder(folder) => folder.reserve(),
            Self::Stdout { .. } => Ok(false),
        }
    }

    /// Closes the log.
    pub(super) fn close(&mut self) -> io::Result<()> {
        match self {
            Self::Folder(folder) => folder.end(),
            Self::Stdout { .. } => self.checkpoint(),
        }
    }

    /// The end of what was written.
    pub(super) fn head(&self) -> Head {
        let (run, segment) = match self {
            Self::Folder(folder) => (folder.run(), folder.segment()),
            Self::Stdout { run, .. } => (&**run, None),
        };
        let place = self.chain().place;
        Head {
            run: run.to_owned(),
            lines: place.lines,
            signed: place.signed,
            last: place.link,
            segment: segment.map(Into::into),
            key: self.chain().key().cloned(),
        }
    }

    fn chain(&self) -> &Chain {
        match self {
            Self::Folder(folder) => &folder.chain,
            Self::Stdout { chain, .. } => chain,
        }
    }
}

fn print(lines: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(lines)?;
    out.flush()
}

#[cfg(test)]
mod tests {
    use filters::audit::chain::Link;

    use super::*;

    #[test]
    fn only_a_write_shows_whether_standard_output_accepts_records() {
        let chain = Chain::new(None, Link::START);
        assert!(!Sink::Stdout { run: String::new(), chain }.reserve().unwrap());
    }
}
