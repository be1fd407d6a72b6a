//! `manifold get`: writes an outcome to files.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use manifold_dispatcher::Dispatcher;
use manifold_runtime_api::{EntryMode, ObjectId};

use crate::args::Get;
use crate::error::CliError;
use crate::objects::{self, Named};

/// Writes the object to the path that the user named: a tree as a directory, which must be new or
/// empty, anything else as a new file. Modes and links are as git checks them out.
pub(crate) fn get(options: &Get) -> Result<(), CliError> {
    let session = options.reading.session()?;
    let dispatcher = &session.dispatcher;
    let outcome = objects::find(dispatcher, &options.id)?;
    let named = objects::below(dispatcher, outcome, options.path.as_deref().unwrap_or_default())?;
    let to = &options.to;
    let is_empty = || fs::read_dir(to).is_ok_and(|mut entries| entries.next().is_none());
    if to.symlink_metadata().is_ok() && !(named.mode == EntryMode::Tree && is_empty()) {
        let exists = io::Error::from(io::ErrorKind::AlreadyExists);
        return Err(CliError::Unwritable { path: to.clone(), source: exists });
    }
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent).map_err(|source| unwritable(parent, source))?;
    }
    let mut created = Vec::new();
    let written = write(dispatcher, named, to, &mut created);
    if written.is_err() {
        // A part must not be taken for the whole, or be in the way of the next attempt. The user is told
        // about the first failure.
        for path in created.iter().rev() {
            let is_dir = path.symlink_metadata().is_ok_and(|there| there.is_dir());
            let _ = if is_dir { fs::remove_dir(path) } else { fs::remove_file(path) };
        }
    }
    written
}

/// Writes an object, and adds the paths that are new to `created`.
fn write(
    dispatcher: &Dispatcher,
    root: Named,
    to: &Path,
    created: &mut Vec<PathBuf>,
) -> Result<(), CliError> {
    let mut open: Vec<(PathBuf, EntryMode, ObjectId)> = vec![(to.to_owned(), root.mode, root.id)];
    while let Some((path, mode, id)) = open.pop() {
        let failed = |source| unwritable(&path, source);
        match mode {
            EntryMode::Tree => {
                match fs::create_dir(&path) {
                    Ok(()) => created.push(path.clone()),
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path == to => {}
                    Err(error) => return Err(failed(error)),
                }
                for entry in objects::safe_tree(dispatcher, id)?.into_entries() {
                    let path = path.join(OsStr::from_bytes(&entry.name));
                    open.push((path, entry.mode, entry.id));
                }
            }
            EntryMode::Blob | EntryMode::Executable => {
                let content = dispatcher.read(id)?.content;
                let mut file = fs::File::create_new(&path).map_err(failed)?;
                created.push(path.clone());
                io::copy(&mut &content[..], &mut file).map_err(failed)?;
                if mode == EntryMode::Executable {
                    // Who may read a new file may also run it.
                    let read = file.metadata().map_err(failed)?.permissions().mode();
                    let all = read | ((read & 0o444) >> 2);
                    file.set_permissions(fs::Permissions::from_mode(all)).map_err(failed)?;
                }
            }
            EntryMode::Symlink => {
                let target = dispatcher.read(id)?.content;
                symlink(OsStr::from_bytes(&target), &path).map_err(failed)?;
                created.push(path);
            }
            // As git does it for a submodule that is not filled.
            EntryMode::Commit => {
                fs::create_dir(&path).map_err(failed)?;
                created.push(path);
            }
        }
    }
    Ok(())
}

fn unwritable(path: &Path, source: io::Error) -> CliError {
    CliError::Unwritable { path: path.to_owned(), source }
}
