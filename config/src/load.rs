//! From files to a config.

use std::path::{Path, PathBuf};

use crate::{Config, Problems, check, de, include, include::Files};

/// A config that exists is valid, and knows what it was made from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What the operator wrote.
    pub config: Config,
    /// What is allowed but should be looked at.
    pub warnings: Problems,
    /// The files it was made from, the main one first, with their bytes.
    pub files: Vec<(PathBuf, Vec<u8>)>,
}

/// Loads a config file and all that it includes. `variable` answers with the value of an
/// environment variable.
///
/// # Errors
/// Everything that is wrong, at once.
pub fn load(path: &Path, variable: &dyn Fn(&str) -> Option<String>) -> Result<Loaded, Problems> {
    from(path, &include::Disk, variable)
}

/// Reads a config from one text that is called `name` in messages.
///
/// # Errors
/// Everything that is wrong, at once.
pub fn parse(name: &str, text: &str) -> Result<Loaded, Problems> {
    struct One<'a>(&'a str);
    impl Files for One<'_> {
        fn read(&self, _: &Path) -> std::io::Result<Vec<u8>> {
            Ok(self.0.as_bytes().to_vec())
        }
        fn list(&self, _: &Path) -> std::io::Result<Vec<String>> {
            Ok(Vec::new())
        }
    }
    from(Path::new(name), &One(text), &|_| None)
}

fn from(
    path: &Path,
    files: &dyn Files,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Loaded, Problems> {
    let mut problems = Problems::default();
    let whole = include::read(path, files, variable, &mut problems);
    let config = whole.and_then(|whole| {
        let config: Config = de::read(&whole.tree, &mut problems)?;
        Some((config, whole.files))
    });
    if let Some((config, files)) = config
        && problems.is_empty()
    {
        let mut found = check::check(&config);
        found.warnings.sort();
        if found.problems.is_empty() {
            return Ok(Loaded { config, warnings: found.warnings, files });
        }
        problems = found.problems;
    }
    problems.sort();
    Err(problems)
}
