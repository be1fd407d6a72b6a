//! The store of a command: which one, and what if it cannot be had.

use std::sync::Arc;

use manifold_dispatcher::{DurableStore, MemoryStore, OpenError, Store};

use crate::args::{StoreArgs, UseArgs};
use crate::error::CliError;

impl StoreArgs {
    /// Opens the store.
    pub(crate) fn open(&self) -> Result<Arc<DurableStore>, CliError> {
        let directory = match &self.store {
            Some(directory) => directory.clone(),
            None => dirs::cache_dir().ok_or(CliError::NoCacheDirectory)?.join("manifold"),
        };
        Ok(Arc::new(DurableStore::open(directory).map_err(CliError::Store)?))
    }

    /// Opens the store. Where nobody has named one and another process keeps it for itself, memory takes its place.
    pub(crate) fn open_or_memory(&self) -> Result<Arc<dyn Store>, CliError> {
        match self.open() {
            Ok(store) => Ok(store),
            Err(CliError::Store(error @ OpenError::InUse { .. })) if self.store.is_none() => {
                eprintln!("warning: {error}; nothing will be remembered after this command");
                Ok(Arc::new(MemoryStore::new()))
            }
            Err(error) => Err(error),
        }
    }
}

impl UseArgs {
    /// The store to compute with.
    pub(crate) fn open(&self) -> Result<Arc<dyn Store>, CliError> {
        if self.no_store { Ok(Arc::new(MemoryStore::new())) } else { self.store.open_or_memory() }
    }
}
