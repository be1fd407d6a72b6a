//! What a git repository says about ignored files, apart from the files `.gitignore`.

use std::env;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use gix_ignore::glob::pattern::Case;
use gix_ignore::glob::search::pattern::List;
use gix_ignore::search::Ignore;
use manifold_runtime_api::bstr::{BStr, BString};

use super::error::{DirectoryError, io_error};
use super::git_index::Tracked;
use super::rules::list;
use super::{names, nested};

/// The repository around a scanned directory. If there is none, the scanned directory counts as a
/// working tree in which nothing is tracked.
pub(super) struct Repository {
    /// The root of the working tree.
    root: PathBuf,
    /// The path of the scanned directory below the root: empty, or with a slash at the end.
    prefix: BString,
    /// The patterns for the whole working tree, the more important list first.
    pub(super) general: Vec<List<Ignore>>,
    pub(super) case: Case,
    tracked: Option<Tracked>,
    /// What the files with these patterns contain.
    patterns: Vec<u8>,
}

impl Repository {
    /// Finds the repository around `directory`. Returns also the directories of the working tree that
    /// contain `directory`, the outermost first.
    pub(super) fn around(directory: &Path) -> Result<(Self, Vec<PathBuf>), DirectoryError> {
        let place = nested::repository_around(directory);
        let root = place.as_ref().map_or(directory, |(root, _)| root).to_owned();
        let mut outer: Vec<_> = directory
            .ancestors()
            .skip(1)
            .take_while(|above| above.starts_with(&root))
            .map(Path::to_owned)
            .collect();
        outer.reverse();
        let mut found = Self {
            prefix: BString::default(),
            general: Vec::new(),
            case: Case::Sensitive,
            tracked: None,
            patterns: Vec::new(),
            root,
        };
        found.prefix = found.path_of(directory);
        if !found.prefix.is_empty() {
            found.prefix.push(b'/');
        }
        let mut files = Vec::new();
        if let Some((root, git)) = &place {
            found.tracked = Some(Tracked::of(git));
            files.push(nested::common_directory(git).join("info/exclude"));
            let ignores_case = ["config", "--type=bool", "--get", "core.ignoreCase"];
            if nested::git(root, &ignores_case).is_some_and(|value| value.trim() == "true") {
                found.case = Case::Fold;
            }
        }
        files.extend(excludes_file(&found.root));
        for file in files {
            match fs::read(&file) {
                Ok(content) => {
                    found.general.push(list(&content, BStr::new("")));
                    found.patterns.extend_from_slice(&content);
                    found.patterns.push(0);
                }
                // Git passes over these, too.
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::NotFound
                            | ErrorKind::NotADirectory
                            | ErrorKind::PermissionDenied
                    ) => {}
                Err(error) => return Err(io_error(&file)(error)),
            }
        }
        Ok((found, outer))
    }

    /// Returns the path below the root of a directory in the working tree.
    pub(super) fn path_of(&self, directory: &Path) -> BString {
        let below = directory.strip_prefix(&self.root).unwrap_or(Path::new(""));
        names::bytes(below.as_os_str()).into()
    }

    /// Returns the path below the root of what is at `below` of the scanned directory.
    pub(super) fn path_below(&self, below: &[u8]) -> BString {
        let mut path = self.prefix.clone();
        path.extend_from_slice(below);
        // The scanned directory itself.
        if below.is_empty() {
            path.pop();
        }
        path
    }

    /// Returns whether a file is tracked, or a directory is a submodule.
    pub(super) fn tracks(&self, path: &BStr) -> Result<bool, DirectoryError> {
        self.tracked.as_ref().map_or(Ok(false), |tracked| tracked.has(path))
    }

    /// Returns whether something below a directory is tracked.
    pub(super) fn tracks_below(&self, path: &BStr) -> Result<bool, DirectoryError> {
        self.tracked.as_ref().map_or(Ok(false), |tracked| tracked.has_below(path))
    }

    /// Returns bytes that change whenever something does that this reads.
    pub(super) fn fingerprint(&self) -> Vec<u8> {
        let mut bytes = self.patterns.clone();
        bytes.push(u8::from(self.case == Case::Fold));
        bytes.extend(self.tracked.iter().flat_map(|tracked| tracked.stat.iter()));
        bytes
    }
}

/// Returns the user's file of patterns for all repositories.
fn excludes_file(root: &Path) -> Option<PathBuf> {
    let named = nested::git(root, &["config", "--type=path", "--get", "core.excludesFile"]);
    // Git prints a line for a value, also for an empty one, which names no file.
    if let Some(named) = named.as_deref().and_then(|line| line.strip_suffix('\n')) {
        return (!named.is_empty()).then(|| root.join(named));
    }
    let variable = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
    let config = variable("XDG_CONFIG_HOME").map(PathBuf::from);
    let config = config.or_else(|| Some(PathBuf::from(variable("HOME")?).join(".config")))?;
    Some(config.join("git/ignore"))
}
