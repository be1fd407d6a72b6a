//! Which entries a scan leaves out: those that match patterns of the caller, and those that git
//! ignores (`gitignore`).

use std::path::Path;
use std::sync::Arc;

use gix_ignore::glob::pattern::Case;
use gix_ignore::glob::search::Pattern;
use gix_ignore::glob::search::pattern::{List, Mapping};
use gix_ignore::search::{Ignore, pattern_matching_relative_path};
use manifold_runtime_api::bstr::{BStr, BString, ByteSlice};
use manifold_runtime_api::{ObjectId, ObjectKind};

use super::error::{DirectoryError, io_error};
use super::ignored::Repository;
use super::{files, names};

/// The name of git's file of patterns in a directory.
const FILE: &str = ".gitignore";

/// The rules of a scan.
pub(super) struct ScanRules {
    /// The patterns of the caller, which count before all others.
    excluded: List<Ignore>,
    /// What git knows about ignored files, if they are left out.
    repository: Option<Repository>,
    /// The rules above the scanned directory.
    above: Arc<Rules>,
}

/// The rules for the entries of a directory.
#[derive(Default)]
pub(super) struct Rules {
    /// Those of the directory above, which count after its own.
    above: Option<Arc<Rules>>,
    /// The patterns of its `.gitignore`.
    own: Option<List<Ignore>>,
    /// Whether git ignores the directory, so that only what is tracked below it is kept.
    is_ignored: bool,
    /// A number that other rules do not have.
    pub(super) fingerprint: u64,
}

/// What happens to an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Kept,
    /// Only tracked files below the directory are kept.
    OnlyTracked,
    LeftOut,
}

impl ScanRules {
    /// Returns the rules of a scan of the directory whose canonical path is `root`. `None` if it
    /// leaves nothing out.
    ///
    /// # Errors
    /// Errors if one of the texts in `excluded` is not a pattern, or if a file with patterns cannot be
    /// read.
    pub(super) fn new(
        root: &Path,
        excluded: &[String],
        ignores: bool,
    ) -> Result<Option<Self>, DirectoryError> {
        if excluded.is_empty() && !ignores {
            return Ok(None);
        }
        let mut fingerprint = excluded.join("\n").into_bytes();
        let patterns = excluded.iter().enumerate().map(|(number, text)| pattern(text, number));
        let excluded =
            List { patterns: patterns.collect::<Result<_, _>>()?, source: None, base: None };
        let mut above = Arc::default();
        let mut repository = None;
        if ignores {
            let (found, outer) = Repository::around(root)?;
            fingerprint.extend_from_slice(&found.fingerprint());
            for directory in outer {
                let path = found.path_of(&directory);
                above = rules_of(&directory, path.as_bstr(), false, &above)?;
            }
            repository = Some(found);
        }
        fingerprint.extend_from_slice(&above.fingerprint.to_le_bytes());
        let above =
            Rules { above: Some(above), fingerprint: hash(&fingerprint), ..Rules::default() };
        Ok(Some(Self { excluded, repository, above: Arc::new(above) }))
    }

    /// Returns the rules that hold for the scanned directory, apart from its own.
    pub(super) fn above(&self) -> &Arc<Rules> {
        &self.above
    }

    /// Returns the rules for the entries of `directory`, whose path below the scanned directory is
    /// `below`.
    pub(super) fn of(
        &self,
        directory: &Path,
        below: &Path,
        is_ignored: bool,
        above: &Arc<Rules>,
    ) -> Result<Arc<Rules>, DirectoryError> {
        let Some(repository) = &self.repository else { return Ok(Arc::clone(above)) };
        let path = repository.path_below(names::bytes(below.as_os_str()));
        rules_of(directory, path.as_bstr(), is_ignored, above)
    }

    /// Returns what happens to the entry at `below` of the scanned directory, in a directory with
    /// these rules.
    ///
    /// # Errors
    /// Errors if the index of the repository cannot be read.
    pub(super) fn verdict(
        &self,
        rules: &Rules,
        below: &BStr,
        is_directory: bool,
    ) -> Result<Verdict, DirectoryError> {
        if let Some(is_excluded) = decide(&self.excluded, below, is_directory, Case::Sensitive) {
            return Ok(if is_excluded { Verdict::LeftOut } else { Verdict::Kept });
        }
        let Some(repository) = &self.repository else { return Ok(Verdict::Kept) };
        let path = repository.path_below(below);
        let path = path.as_bstr();
        let is_ignored = rules.is_ignored || rules.ignores(path, is_directory, repository);
        Ok(if !is_ignored {
            Verdict::Kept
        } else if is_directory && repository.tracks_below(path)? {
            Verdict::OnlyTracked
        } else if repository.tracks(path)? {
            Verdict::Kept
        } else {
            Verdict::LeftOut
        })
    }
}

impl Rules {
    /// Returns whether git ignores what is at `path` of the working tree.
    fn ignores(&self, path: &BStr, is_directory: bool, repository: &Repository) -> bool {
        let case = repository.case;
        let chain = std::iter::successors(Some(self), |rules| rules.above.as_deref());
        let own = chain.filter_map(|rules| rules.own.as_ref());
        let mut lists = own.chain(&repository.general);
        lists.find_map(|list| decide(list, path, is_directory, case)).unwrap_or(false)
    }
}

/// Returns the rules of a directory at `path` of the working tree. Reads its `.gitignore`.
fn rules_of(
    directory: &Path,
    path: &BStr,
    is_ignored: bool,
    above: &Arc<Rules>,
) -> Result<Arc<Rules>, DirectoryError> {
    // Git reads no larger file.
    const MAX_BYTES: u64 = 100 << 20;
    let file = directory.join(FILE);
    let content = files::read_if_any(&file, MAX_BYTES).map_err(io_error(&file))?;
    if content.is_none() && is_ignored == above.is_ignored {
        return Ok(Arc::clone(above));
    }
    let mut fingerprint = above.fingerprint.to_le_bytes().to_vec();
    fingerprint.push(u8::from(is_ignored) | u8::from(content.is_some()) << 1);
    fingerprint.extend_from_slice(path);
    fingerprint.push(0);
    let own = content.map(|content| {
        fingerprint.extend_from_slice(&content);
        list(&content, path)
    });
    let above = Some(Arc::clone(above));
    Ok(Arc::new(Rules { above, own, is_ignored, fingerprint: hash(&fingerprint) }))
}

/// Parses the patterns for what is below the directory at `path` of the working tree.
pub(super) fn list(content: &[u8], path: &BStr) -> List<Ignore> {
    let patterns = Ignore { support_precious: false }.bytes_to_patterns(content, Path::new(FILE));
    let base = (!path.is_empty()).then(|| {
        let mut base = BString::from(path);
        base.push(b'/');
        base
    });
    List { patterns, source: None, base }
}

/// Parses a pattern of the caller.
fn pattern(text: &str, number: usize) -> Result<Mapping<gix_ignore::Kind>, DirectoryError> {
    // Shells complete paths to this form, which no pattern has.
    let below = match (text.strip_prefix("./"), text.strip_prefix("!./")) {
        (Some(below), _) => Some(format!("/{below}")),
        (_, Some(below)) => Some(format!("!/{below}")),
        _ => None,
    };
    let mut parsed = gix_ignore::parse(below.as_deref().unwrap_or(text).as_bytes(), false);
    match (parsed.next(), parsed.next()) {
        (Some((pattern, _, value)), None) => {
            Ok(Mapping { pattern, value, sequence_number: number })
        }
        _ => Err(DirectoryError::NotAPattern { text: text.to_owned() }),
    }
}

/// Returns whether the last pattern that matches excludes `path`. `None` if none matches.
fn decide(list: &List<Ignore>, path: &BStr, is_directory: bool, case: Case) -> Option<bool> {
    let name = path.rfind_byte(b'/').map(|slash| slash + 1);
    let found = pattern_matching_relative_path(list, path, name, Some(is_directory), case)?;
    Some(!found.pattern.is_negative())
}

fn hash(bytes: &[u8]) -> u64 {
    let id = ObjectId::of(ObjectKind::Blob, bytes);
    id.as_bytes().first_chunk().map_or(0, |first| u64::from_le_bytes(*first))
}
