//! Selects and opens the store of a command, and falls back to memory if it cannot be used.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use manifold_dispatcher::layers::Overlaid;
use manifold_dispatcher::{DurableStore, MemoryStore, OpenError, Store, StoreOptions};
use parking_lot::Mutex;

use crate::args::{StoreArgs, UseArgs};
use crate::error::CliError;
use crate::patience::Phase;
use crate::say::{say, warn};

const VARIABLE: &str = "MANIFOLD_STORE";

/// The stores that this process has opened.
static OPENED: Mutex<Vec<Arc<DurableStore>>> = Mutex::new(Vec::new());

/// Closes the stores at the end of the process, also if something still holds them, such as a guest on a
/// thread of V8. A store that was not closed can only be opened by someone who may write it.
pub(crate) fn close() {
    for store in OPENED.lock().drain(..) {
        store.close();
    }
}

impl StoreArgs {
    /// Returns the directory that the user named. An empty variable counts as unset, because CI
    /// systems define empty variables.
    fn named(&self) -> Option<PathBuf> {
        let variable = || std::env::var_os(VARIABLE).map(PathBuf::from);
        self.store.clone().or_else(variable).filter(|directory| !directory.as_os_str().is_empty())
    }

    /// Returns the directory of the store: the named one, or the default.
    pub(crate) fn directory(&self) -> Result<PathBuf, CliError> {
        match self.named() {
            Some(directory) => Ok(directory),
            None => Ok(dirs::cache_dir().ok_or(CliError::NoCacheDirectory)?.join("manifold")),
        }
    }

    fn open_with(&self, options: StoreOptions) -> Result<Arc<DurableStore>, CliError> {
        Phase::OpeningTheStore.begin();
        let options = options.until_exit(true).on_wait(|waits| say(&waits.to_string()));
        let store = Arc::new(options.open(self.directory()?).map_err(CliError::Store)?);
        OPENED.lock().push(Arc::clone(&store));
        Ok(store)
    }

    /// Opens the store for reading and writing.
    pub(crate) fn open(&self) -> Result<Arc<DurableStore>, CliError> {
        self.open_with(DurableStore::options())
    }

    /// Opens the store, read-only if it cannot be written.
    pub(crate) fn open_to_read(&self) -> Result<Arc<DurableStore>, CliError> {
        match self.open() {
            Err(CliError::Store(error)) if cannot_be_written(&error) => {
                // If there is no file to read, the error of writing says more.
                self.open_with(DurableStore::options().read_only(true)).map_err(|read| match read {
                    CliError::Store(OpenError::Io { source, .. })
                        if source.kind() == io::ErrorKind::NotFound =>
                    {
                        CliError::Store(error)
                    }
                    read => read,
                })
            }
            opened => opened,
        }
    }

    /// Opens the store to compute with. A read-only store is overlaid with memory. If the default
    /// store cannot be used, memory replaces it, with a warning.
    pub(crate) fn open_to_compute(&self) -> Result<Arc<dyn Store>, CliError> {
        self.open_or_memory(true)
    }

    /// Like [`Self::open_to_compute`], without warnings, for commands that compute nothing.
    pub(crate) fn open_to_look(&self) -> Result<Arc<dyn Store>, CliError> {
        self.open_or_memory(false)
    }

    fn open_or_memory(&self, warns: bool) -> Result<Arc<dyn Store>, CliError> {
        let warn = |text: &str| {
            if warns {
                warn(text);
            }
        };
        let error = match self.open_to_read() {
            Ok(store) if store.is_read_only() => {
                let file = store.file().display();
                warn(&format!(
                    "the store {file} is read-only; the results of this command are not stored"
                ));
                return Ok(Arc::new(Overlaid::new(MemoryStore::new(), store)));
            }
            Ok(store) => return Ok(store),
            Err(error) => error,
        };
        let problem = match &error {
            CliError::Store(problem @ (OpenError::InUse { .. } | OpenError::Unfinished { .. })) => {
                problem.to_string()
            }
            CliError::Store(problem @ OpenError::Io { source, .. }) => {
                format!("{problem} ({source})")
            }
            CliError::NoCacheDirectory => "this user has no cache directory".to_owned(),
            _ => return Err(error),
        };
        if self.named().is_some() {
            return Err(error);
        }
        warn(&format!(
            "{problem}; the results of this command are not stored (--store DIR names another \
             directory)"
        ));
        Ok(Arc::new(MemoryStore::new()))
    }
}

/// Returns whether the store failed to open because its file or directory cannot be written.
fn cannot_be_written(error: &OpenError) -> bool {
    let OpenError::Io { source, .. } = error else { return false };
    matches!(source.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

impl UseArgs {
    /// Opens the store to compute with.
    pub(crate) fn open(&self) -> Result<Arc<dyn Store>, CliError> {
        if !self.no_store {
            return self.store.open_to_compute();
        }
        let store = Arc::new(MemoryStore::new());
        // The process ends when the command does, and to free all objects takes a while.
        std::mem::forget(Arc::clone(&store));
        Ok(store)
    }
}
