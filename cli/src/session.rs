//! A dispatcher with everything that the command needs.

use std::sync::Arc;

use manifold::guests;
use manifold_dispatcher::{Dispatcher, ObjectSource};
use manifold_runtime_api::{EntryMode, ObjectId, Runtime, TreeEntry};
use manifold_runtime_wasm::WasmRuntime;

use crate::error::CliError;

pub(crate) struct Session {
    pub(crate) dispatcher: Dispatcher,
    /// The host image hash of the wasm runtime, for images made on the spot.
    pub(crate) wasm: ObjectId,
    /// The standard tree.
    pub(crate) std: ObjectId,
}

impl Session {
    pub(crate) fn new(sources: Vec<Arc<dyn ObjectSource>>) -> Result<Self, CliError> {
        let runtime = Arc::new(WasmRuntime::new()?);
        let wasm = runtime.host_image().id();
        let builder = Dispatcher::builder().runtime(runtime);
        let dispatcher = sources.into_iter().fold(builder, |builder, source| builder.source(source)).build()?;
        let std = guests::install(&dispatcher, wasm)?;
        Ok(Self { dispatcher, wasm, std })
    }

    /// Stores `text` and answers the entry of an arguments tree for it.
    pub(crate) fn text_argument(&self, name: &str, text: &str) -> Result<TreeEntry, CliError> {
        let id = self.dispatcher.put_blob(text.as_bytes().to_vec())?;
        Ok(TreeEntry::new(name, EntryMode::Blob, id))
    }
}
