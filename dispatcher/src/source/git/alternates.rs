//! Where else objects of a repository are: `info/alternates`, as `gitrepository-layout` describes it.
//!
//! `gix_odb::alternate::resolve` (gix-odb 0.87) refuses cycles, which git passes over, and takes the relative paths of an alternate's own
//! alternates from the first directory, where git takes them from the alternate. So only its parser is used.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// How many alternates git follows from one to the next.
const DEEPEST: usize = 5;

/// `directory`, its alternates, `more` of them, and the alternates of those: each once, and as far as they are there.
pub(super) fn all(directory: &Path, more: &[PathBuf]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut met = HashSet::new();
    visit(directory, 0, &mut met, &mut found);
    for alternate in more {
        visit(alternate, 1, &mut met, &mut found);
    }
    found
}

fn visit(directory: &Path, depth: usize, met: &mut HashSet<PathBuf>, found: &mut Vec<PathBuf>) {
    let Ok(canonical) = directory.canonicalize() else { return };
    if depth > DEEPEST || !canonical.is_dir() || !met.insert(canonical) {
        return;
    }
    found.push(directory.to_owned());
    let Ok(listed) = std::fs::read(directory.join("info").join("alternates")) else { return };
    match gix_odb::alternate::parse(&listed) {
        // An absolute path takes the place of the one that it is joined to.
        Ok(alternates) => {
            alternates.iter().for_each(|path| visit(&directory.join(path), depth + 1, met, found))
        }
        Err(error) => {
            tracing::warn!("the alternates of {} cannot be read: {error}", directory.display())
        }
    }
}
