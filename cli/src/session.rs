//! A dispatcher with everything that the command needs.

use std::sync::{Arc, OnceLock};

use manifold::guests;
use manifold_dispatcher::{Dispatcher, ObjectSource};
use manifold_runtime_api::{EntryMode, Limits, Object, ObjectId, ObjectKind, Result as ApiResult, Runtime, TreeEntry};
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
        let builder = Dispatcher::builder().runtime(runtime).limits(limits());
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

/// A directory may hold large files, and the user means them. In base64 a response of 1 GiB is a file of 768 MiB.
fn limits() -> Limits {
    const GIB: u64 = 1 << 30;
    let mut limits = Limits::default();
    limits.memory_bytes = 4 * GIB;
    limits.response_bytes = GIB;
    limits.guest_request_bytes = GIB;
    limits
}

/// A source that is known later than the dispatcher: empty until it is set.
#[derive(Default)]
pub(crate) struct LateSource(OnceLock<Arc<dyn ObjectSource>>);

impl LateSource {
    /// Sets the source. The first one stays.
    pub(crate) fn set(&self, source: Arc<dyn ObjectSource>) {
        let _ = self.0.set(source);
    }
}

impl ObjectSource for LateSource {
    fn read(&self, id: ObjectId) -> ApiResult<Option<Object>> {
        self.0.get().map_or(Ok(None), |source| source.read(id))
    }

    fn kind(&self, id: ObjectId) -> ApiResult<Option<ObjectKind>> {
        self.0.get().map_or(Ok(None), |source| source.kind(id))
    }
}
