//! Several files as one tree.

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
};

use crate::{
    Problems, renamed,
    tree::{self, Key, Node, Value},
};

const FILES_MAX: usize = 1000;
const DEPTH_MAX: usize = 8;
const BYTES_MAX: usize = 16 << 20;

/// Where files come from. All that a load looks at it looks at here.
pub trait Files {
    /// The bytes of a file.
    ///
    /// # Errors
    /// If it cannot be read.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// The names in a folder that fit, in their order.
    ///
    /// # Errors
    /// If the folder cannot be read.
    fn list(&self, pattern: &Pattern) -> io::Result<Vec<String>>;
}

/// Files of a folder by their names, as `include` writes them: `folder/before*after`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pattern {
    folder: PathBuf,
    before: String,
    after: String,
}

/// The files of this machine.
pub struct Disk;

impl Files for Disk {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        // No more than may be used, for a path can lead to an endless device.
        let mut bytes = Vec::new();
        std::fs::File::open(path)?.take(BYTES_MAX as u64 + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn list(&self, pattern: &Pattern) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&pattern.folder)? {
            names.extend(entry?.file_name().into_string().ok().filter(|name| pattern.fits(name)));
        }
        names.sort();
        Ok(names)
    }
}

impl Pattern {
    fn fits(&self, name: &str) -> bool {
        name.len() >= self.before.len() + self.after.len()
            && name.starts_with(&self.before)
            && name.ends_with(&self.after)
            && !name.starts_with('.')
    }
}

/// A tree, with the files it was made from.
pub(crate) struct Whole {
    pub(crate) tree: Node,
    /// Path and bytes, in the order they were read.
    pub(crate) files: Vec<(PathBuf, Vec<u8>)>,
    /// The old names in them.
    pub(crate) warnings: Problems,
}

/// Reads a file and all that it includes.
pub(crate) fn read(
    path: &Path,
    files: &dyn Files,
    variable: &dyn Fn(&str) -> Option<String>,
    problems: &mut Problems,
) -> Option<Whole> {
    let mut reading =
        Reading { files, variable, problems, read: Vec::new(), warnings: Problems::default() };
    let tree = reading.file(path, None, 0)?;
    Some(Whole { tree, files: reading.read, warnings: reading.warnings })
}

struct Reading<'a> {
    files: &'a dyn Files,
    variable: &'a dyn Fn(&str) -> Option<String>,
    problems: &'a mut Problems,
    read: Vec<(PathBuf, Vec<u8>)>,
    warnings: Problems,
}

impl Reading<'_> {
    fn file(
        &mut self,
        path: &Path,
        included_at: Option<&crate::Place>,
        depth: usize,
    ) -> Option<Node> {
        let shown = path.display().to_string();
        let own = crate::Place { file: shown.as_str().into(), ..crate::Place::default() };
        let place = included_at.unwrap_or(&own);
        if self.read.iter().any(|(read, _)| read == path) {
            self.problems.add(place, format!("`{shown}` is already included"));
            return None;
        }
        if depth > DEPTH_MAX || self.read.len() >= FILES_MAX {
            self.problems.add(place, format!("too many files are included, at `{shown}`"));
            return None;
        }
        let bytes = match self.files.read(path) {
            Ok(bytes) => bytes,
            Err(error) => {
                self.problems.add(place, format!("cannot read `{shown}`: {}", cause(&error)));
                return None;
            }
        };
        let total: usize = self.read.iter().map(|(_, bytes)| bytes.len()).sum();
        if total + bytes.len() > BYTES_MAX {
            self.problems.add(place, format!("`{shown}` makes the config larger than 16 MiB"));
            return None;
        }
        self.read.push((path.to_owned(), bytes.clone()));
        let Ok(text) = String::from_utf8(bytes) else {
            self.problems.add(&own, "the file is not UTF-8");
            return None;
        };
        let mut tree = tree::parse(&shown, &text, self.problems)?;
        crate::env::interpolate(&mut tree, self.variable, self.problems);
        renamed::apply(&mut tree, self.problems, &mut self.warnings);
        let Value::Map(entries) = &mut tree.value else {
            self.problems.add(&tree.place, "a config is a map; begin with `version: stagedoor/v1`");
            return None;
        };
        let include = entries.iter().position(|(key, _)| key.name == "include");
        if let Some((key, mut include)) = include.map(|at| entries.remove(at)) {
            let told = self.problems.len();
            let included = self.included(path, &include);
            let mut all = self.problems.len() == told;
            for (path, place) in included {
                match self.file(&path, Some(&place), depth + 1) {
                    Some(part) => merge(&mut tree, part, self.problems),
                    None => all = false,
                }
            }
            if let Value::Map(entries) = &mut tree.value
                && !all
            {
                include.value = Value::Cut;
                entries.push((key, include));
            }
        }
        Some(tree)
    }

    /// The files that `include: [...]` names.
    fn included(&mut self, from: &Path, include: &Node) -> Vec<(PathBuf, crate::Place)> {
        let Value::List(items) = &include.value else {
            self.problems
                .add(&include.place, "`include` is a list; write `include: [workspaces/*.yaml]`");
            return Vec::new();
        };
        let folder = from.parent().unwrap_or(Path::new(""));
        let mut found = Vec::new();
        for item in items {
            let Value::Text { text, .. } = &item.value else {
                self.problems.add(&item.place, "`include` must be a list of paths");
                continue;
            };
            let path = folder.join(text);
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let stars = |text: &str| text.matches('*').count();
            if stars(text) > stars(name) || stars(name) > 1 {
                let message = "`*` may appear once, in the file name; write `folder/*.yaml`";
                self.problems.add(&item.place, message);
                continue;
            }
            let Some((before, after)) = name.split_once('*') else {
                found.push((path, item.place.clone()));
                continue;
            };
            let folder = path.parent().unwrap_or(Path::new("")).to_owned();
            let pattern =
                Pattern { folder: folder.clone(), before: before.into(), after: after.into() };
            match self.files.list(&pattern) {
                Ok(names) => {
                    found.extend(names.iter().map(|name| (folder.join(name), item.place.clone())));
                }
                Err(error) => {
                    let shown = folder.display();
                    self.problems
                        .add(&item.place, format!("cannot list `{shown}`: {}", cause(&error)));
                }
            }
        }
        found
    }
}

/// Adds a file to what has been read: maps by key, lists one after the other. What both say is a
/// problem, for neither is more right.
fn merge(tree: &mut Node, part: Node, problems: &mut Problems) {
    match (&mut tree.value, part.value) {
        (Value::Map(entries), Value::Map(more)) => {
            for (key, node) in more {
                match entries.iter_mut().find(|(own, _)| own.name == key.name) {
                    None => entries.push((key, node)),
                    Some((own, existing)) => merge_entry(own, existing, &key, node, problems),
                }
            }
        }
        (_, Value::Map(_)) => {}
        _ => problems.add(&part.place, "an included file must be a map, like the config itself"),
    }
}

fn merge_entry(own: &Key, existing: &mut Node, key: &Key, node: Node, problems: &mut Problems) {
    match (&mut existing.value, &node.value) {
        (Value::List(items), Value::List(more)) => items.extend(more.iter().cloned()),
        (Value::Map(_), Value::Map(_)) => merge(existing, node, problems),
        // What was cut has been reported.
        (Value::Cut, _) | (_, Value::Cut) => {}
        // Every file may say the version; they must say the same.
        (Value::Text { text: a, .. }, Value::Text { text: b, .. })
            if key.name == "version" && a == b => {}
        _ => problems.add(&key.place, format!("`{}` is already set, at {}", key.name, own.place)),
    }
}

fn cause(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        _ => error.to_string(),
    }
}
