//! From files to a config.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    Config, Problems, check,
    cuts::Cuts,
    de,
    include::{self, Files, Pattern},
    tree::Node,
};

/// A config that exists is valid, and knows what it was made from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What the operator wrote.
    pub config: Config,
    /// What is allowed but should be looked at.
    pub warnings: Problems,
    /// The files it was made from, the main one first, with their bytes; last, what a control source
    /// said, by its address.
    pub files: Vec<(PathBuf, Vec<u8>)>,
    /// What stands in the files, if there is a control source.
    pub(crate) tree: Arc<Node>,
}

/// Loads a config file and all that it includes. `variable` answers with the value of an
/// environment variable.
///
/// # Errors
/// Everything that is wrong, at once.
pub fn load(path: &Path, variable: &dyn Fn(&str) -> Option<String>) -> Result<Loaded, Problems> {
    load_from(path, &include::Disk, variable)
}

/// Reads a config from one text that is called `name` in messages.
///
/// # Errors
/// Everything that is wrong, at once.
pub fn parse(name: &str, text: &str) -> Result<Loaded, Problems> {
    parse_with(name, text, &|_| None)
}

/// The same with these variables.
pub(crate) fn parse_with(
    name: &str,
    text: &str,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Loaded, Problems> {
    struct One<'a>(&'a str);
    impl Files for One<'_> {
        fn read(&self, _: &Path) -> std::io::Result<Vec<u8>> {
            Ok(self.0.as_bytes().to_vec())
        }
        fn list(&self, _: &Pattern) -> std::io::Result<Vec<String>> {
            Ok(Vec::new())
        }
    }
    load_from(Path::new(name), &One(text), variable)
}

/// Loads a config as [`load`] does, from files that may be elsewhere.
///
/// # Errors
/// Everything that is wrong, at once.
pub fn load_from(
    path: &Path,
    files: &dyn Files,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Loaded, Problems> {
    let mut problems = Problems::default();
    if let Some(whole) = include::read(path, files, variable, &mut problems)
        && let tree = Arc::new(whole.tree)
        && let Some((read, rest)) = de::read_on::<Config>(&tree, &mut problems)
    {
        let cuts = Cuts::new(rest);
        if problems.is_empty() {
            let found = check::check(&read, &read, cuts);
            if found.problems.is_empty() {
                let (mut warnings, files) = (whole.warnings, whole.files);
                warnings.extend(found.warnings);
                warnings.sort();
                // Only what a control source says is laid over it, and it is larger than all else.
                let tree = if read.control.is_some() { tree } else { Arc::new(Node::none()) };
                return Ok(Loaded { config: read, warnings, files, tree });
            }
            problems.extend(found.problems);
        } else if let Some::<Config>(rest) = de::read(cuts.rest(), &mut Problems::default()) {
            problems.extend(check::check(&rest, &read, cuts).problems);
        }
    }
    problems.sort();
    Err(problems)
}
