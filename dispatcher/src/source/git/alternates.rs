//! Alternates: further object directories, listed in `info/alternates` (`gitrepository-layout`).
//!
//! Only the parser of `gix_odb::alternate` is used. Its `resolve` (gix-odb 0.87) refuses cycles,
//! which git ignores, and resolves the relative paths of an alternate's own alternates against the
//! first directory, while git resolves them against the alternate.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// How many alternates git follows in a chain.
const MAX_ALTERNATE_DEPTH: usize = 5;

/// Returns `directory`, its alternates, the additional alternates `more`, and their alternates in
/// turn. Each directory is listed once. Directories that do not exist are left out.
pub(super) fn resolve(directory: &Path, more: &[PathBuf]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    visit(directory, 0, &mut seen, &mut found);
    for alternate in more {
        visit(alternate, 1, &mut seen, &mut found);
    }
    found
}

fn visit(directory: &Path, depth: usize, seen: &mut HashSet<PathBuf>, found: &mut Vec<PathBuf>) {
    let Ok(canonical) = directory.canonicalize() else { return };
    if depth > MAX_ALTERNATE_DEPTH || !canonical.is_dir() || !seen.insert(canonical) {
        return;
    }
    found.push(directory.to_owned());
    let Ok(listed) = std::fs::read(directory.join("info").join("alternates")) else { return };
    match gix_odb::alternate::parse(&listed) {
        // Joining an absolute path replaces the base path.
        Ok(alternates) => {
            alternates.iter().for_each(|path| visit(&directory.join(path), depth + 1, seen, found))
        }
        Err(error) => {
            tracing::warn!("cannot read the alternates of {}: {error}", directory.display())
        }
    }
}
