//! Validation of the names of tree entries. It accepts what `git fsck --strict` accepts.

use bstr::{BStr, ByteSlice};
use gix_validate::path::{component, component::Error as Refusal};

use crate::entry_mode::EntryMode;
use crate::git_attributes_name;

/// Why the name of a tree entry is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum NameProblem {
    /// The name has no bytes.
    #[error("the name is empty")]
    Empty,
    /// The name is `.` or `..`.
    #[error("`.` and `..` are not valid names")]
    Relative,
    /// The name contains a `/`.
    #[error("the name contains a slash")]
    Slash,
    /// The name contains a NUL byte.
    #[error("the name contains a NUL byte")]
    Nul,
    /// The name is `.git`, or a file system may treat it as `.git`.
    #[error("the name is `.git`, or a file system may treat it as `.git`, which git reserves")]
    DotGit,
    /// The name is that of a file that git itself reads, such as `.gitmodules`, and the entry has a
    /// mode that git refuses for it.
    #[error("git reads a file of this name; the entry must be a regular file")]
    GitFile,
    /// The name is longer than 4096 bytes.
    #[error("the name is longer than 4096 bytes")]
    TooLong,
}

/// The maximum length of a name in bytes, as `fsck.largePathname` of git 2.45 and later.
const MAX_NAME_BYTES: usize = 4096;

/// The options that match git's fsck: names that look like `.git` on HFS+ and NTFS are refused on
/// every platform. Names that are merely inconvenient on Windows are accepted.
const FSCK_OPTIONS: component::Options =
    component::Options { protect_windows: false, protect_hfs: true, protect_ntfs: true };

/// The options for the parts of a name between backslashes. Only Windows treats a backslash as a
/// separator, so only look-alikes on NTFS count there.
const BACKSLASH_PART_OPTIONS: component::Options =
    component::Options { protect_hfs: false, ..FSCK_OPTIONS };

/// Validates the name of an entry of the given mode.
pub(crate) fn check(name: &BStr, mode: EntryMode) -> Result<(), NameProblem> {
    if is_plain(name) {
        return Ok(());
    }
    if name.find_byte(0).is_some() {
        return Err(NameProblem::Nul);
    }
    if name.len() > MAX_NAME_BYTES {
        return Err(NameProblem::TooLong);
    }
    check_component(name, mode, FSCK_OPTIONS)?;
    if matches!(mode, EntryMode::Tree | EntryMode::Commit)
        && git_attributes_name::is_look_alike(name)
    {
        return Err(NameProblem::GitFile);
    }
    let mut parts = name.split_str(b"\\").peekable();
    while let Some(part) = parts.next() {
        match check_component(part.as_bstr(), mode, BACKSLASH_PART_OPTIONS) {
            Err(NameProblem::DotGit) => return Err(NameProblem::DotGit),
            Err(NameProblem::GitFile) if parts.peek().is_none() => {
                return Err(NameProblem::GitFile);
            }
            _ => {}
        }
    }
    Ok(())
}

/// Returns whether no special rule can apply to the name, which is true of nearly every name. All
/// look-alikes start with a dot, or contain a tilde, a backslash, or a character that is not ASCII.
fn is_plain(name: &BStr) -> bool {
    !name.is_empty()
        && name.len() <= MAX_NAME_BYTES
        && name[0] != b'.'
        && name.iter().all(|byte| matches!(byte, 1..0x80) && !matches!(byte, b'/' | b'\\' | b'~'))
}

fn check_component(
    name: &BStr,
    mode: EntryMode,
    options: component::Options,
) -> Result<(), NameProblem> {
    // Git requires `.gitmodules` to be a regular file. `gix-validate` checks this for symbolic
    // links only, so all modes other than those of regular files are passed as symbolic links.
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
