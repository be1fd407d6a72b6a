//! Which names may stand in a tree: what `git fsck --strict` lets through.

use bstr::{BStr, ByteSlice};
use gix_validate::path::{component, component::Error as Refusal};

use crate::git_attributes_name;
use crate::tree::EntryMode;

/// What is wrong with the name of a tree entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum NameProblem {
    /// The name has no bytes.
    #[error("the name is empty")]
    Empty,
    /// The name is `.` or `..`.
    #[error("`.` and `..` may not be names")]
    Relative,
    /// The name holds a `/`.
    #[error("the name holds a slash")]
    Slash,
    /// The name holds a NUL byte.
    #[error("the name holds a NUL byte")]
    Nul,
    /// The name is `.git`, or some file system would take it for `.git`.
    #[error("git keeps `.git`, and every name that a file system takes for it, to itself")]
    DotGit,
    /// The name is one of git's own files, such as `.gitmodules`, and the entry has a mode that git refuses for it.
    #[error("git's own file of this name must be a regular file")]
    GitFile,
    /// The name is longer than 4096 bytes.
    #[error("the name is longer than 4096 bytes")]
    TooLong,
}

/// `fsck.largePathname` of git 2.45 and later.
const MAX_LENGTH: usize = 4096;

/// HFS+ and NTFS look-alikes are refused on every platform, as git's fsck does; names that merely trouble Windows are not.
const AS_FSCK: component::Options =
    component::Options { protect_windows: false, protect_hfs: true, protect_ntfs: true };

/// Only Windows takes a backslash for a separator, so only its look-alikes count in the parts of such a name.
const BETWEEN_BACKSLASHES: component::Options =
    component::Options { protect_hfs: false, ..AS_FSCK };

/// Checks one entry's name, given the entry's mode.
pub(crate) fn check(name: &BStr, mode: EntryMode) -> Result<(), NameProblem> {
    if is_plain(name) {
        return Ok(());
    }
    if name.find_byte(0).is_some() {
        return Err(NameProblem::Nul);
    }
    if name.len() > MAX_LENGTH {
        return Err(NameProblem::TooLong);
    }
    check_component(name, mode, AS_FSCK)?;
    if matches!(mode, EntryMode::Tree | EntryMode::Commit)
        && git_attributes_name::is_look_alike(name)
    {
        return Err(NameProblem::GitFile);
    }
    let mut parts = name.split_str(b"\\").peekable();
    while let Some(part) = parts.next() {
        match check_component(part.as_bstr(), mode, BETWEEN_BACKSLASHES) {
            Err(NameProblem::DotGit) => return Err(NameProblem::DotGit),
            Err(NameProblem::GitFile) if parts.peek().is_none() => {
                return Err(NameProblem::GitFile);
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether the name is far from everything that git is careful about, as nearly every name is: all look-alikes start with a
/// dot, or hold a tilde, a backslash, or something that is not ASCII.
fn is_plain(name: &BStr) -> bool {
    !name.is_empty()
        && name.len() <= MAX_LENGTH
        && name[0] != b'.'
        && name.iter().all(|byte| matches!(byte, 1..0x80) && !matches!(byte, b'/' | b'\\' | b'~'))
}

fn check_component(
    name: &BStr,
    mode: EntryMode,
    options: component::Options,
) -> Result<(), NameProblem> {
    // Git wants `.gitmodules` to be a regular file. The library asks that of symbolic links, so other modes go by that name.
    let regular = matches!(mode, EntryMode::Blob | EntryMode::Executable);
    let as_link = (!regular).then_some(component::Mode::Symlink);
    component(name, as_link, options).map(|_| ()).map_err(|problem| match problem {
        Refusal::Empty => NameProblem::Empty,
        Refusal::PathSeparator => NameProblem::Slash,
        Refusal::Relative => NameProblem::Relative,
        Refusal::SymlinkedGitModules => NameProblem::GitFile,
        _ => NameProblem::DotGit,
    })
}
