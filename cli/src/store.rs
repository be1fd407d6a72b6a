//! The store of a command: which one, and what if it cannot be had.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use manifold_dispatcher::layers::Overlaid;
use manifold_dispatcher::{DurableStore, MemoryStore, OpenError, Store, StoreOptions};

use crate::args::{StoreArgs, UseArgs};
use crate::error::CliError;
use crate::patience::Doing;
use crate::say::{say, warn};

const VARIABLE: &str = "MANIFOLD_STORE";

impl StoreArgs {
    /// The directory that the user has named. An empty variable counts as none: whoever defines it has not meant anything.
    fn named(&self) -> Option<PathBuf> {
        let variable = || std::env::var_os(VARIABLE).map(PathBuf::from);
        self.store.clone().or_else(variable).filter(|directory| !directory.as_os_str().is_empty())
    }

    /// The store's directory.
    pub(crate) fn directory(&self) -> Result<PathBuf, CliError> {
        match self.named() {
            Some(directory) => Ok(directory),
            None => Ok(dirs::cache_dir().ok_or(CliError::NoCacheDirectory)?.join("manifold")),
        }
    }

    fn open_with(&self, options: StoreOptions) -> Result<Arc<DurableStore>, CliError> {
        Doing::OpeningTheStore.begin();
        let options = options.on_wait(|waits| say(&waits.to_string()));
        Ok(Arc::new(options.open(self.directory()?).map_err(CliError::Store)?))
    }

    /// Opens the store.
    pub(crate) fn open(&self) -> Result<Arc<DurableStore>, CliError> {
        self.open_with(DurableStore::options())
    }

    /// Opens the store to look at it, which needs no more than that it can be read.
    pub(crate) fn open_to_read(&self) -> Result<Arc<DurableStore>, CliError> {
        match self.open() {
            Err(CliError::Store(error)) if cannot_be_written(&error) => {
                // Why it cannot be written says more than that there is none to be read.
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

    /// Opens the store to compute with. One that can only be read gets memory over it. Where nobody has named one, and it cannot be
    /// had, memory takes its place.
    pub(crate) fn open_to_compute(&self) -> Result<Arc<dyn Store>, CliError> {
        self.open_or_memory(true)
    }

    /// The same for a command that computes nothing, and need not say what will be forgotten.
    pub(crate) fn open_to_look(&self) -> Result<Arc<dyn Store>, CliError> {
        self.open_or_memory(false)
    }

    fn open_or_memory(&self, says: bool) -> Result<Arc<dyn Store>, CliError> {
        let warn = |text: &str| {
            if says {
                warn(text);
            }
        };
        let error = match self.open_to_read() {
            Ok(store) if store.is_read_only() => {
                let file = store.file().display();
                warn(&format!(
                    "the store {file} can only be read; what is computed now will not be remembered"
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
            CliError::NoCacheDirectory => "there is no cache directory for this user".to_owned(),
            _ => return Err(error),
        };
        if self.named().is_some() {
            return Err(error);
        }
        warn(&format!(
            "{problem}; nothing will be remembered after this command (--store DIR names another directory)"
        ));
        Ok(Arc::new(MemoryStore::new()))
    }
}

fn cannot_be_written(error: &OpenError) -> bool {
    let OpenError::Io { source, .. } = error else { return false };
    matches!(source.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

impl UseArgs {
    /// The store to compute with.
    pub(crate) fn open(&self) -> Result<Arc<dyn Store>, CliError> {
        if self.no_store { Ok(Arc::new(MemoryStore::new())) } else { self.store.open_to_compute() }
    }
}
