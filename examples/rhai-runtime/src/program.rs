//! [`Programs`]: the cache of parsed modules.

use std::sync::Arc;

use manifold_runtime_api::{Error, Host, Limit, Limits, ObjectId, ObjectRef, Reason, Result};
use quick_cache::sync::Cache;
use rhai::AST;

use crate::engine::Engines;
use crate::fiber;

/// Maximum number of modules in the cache.
const MAX_CACHED: usize = 256;

/// Parsed modules by id. Each is parsed once, however many jobs ask for it at the same time.
pub(crate) struct Programs(Cache<ObjectId, Entry>);

#[derive(Clone)]
struct Entry {
    bytes: u64,
    /// A syntax error depends on the module alone, so it is kept, too.
    parsed: Result<Arc<AST>>,
}

impl Programs {
    pub(crate) fn new() -> Self {
        Self(Cache::new(MAX_CACHED))
    }

    /// Returns the parsed module. A failure of `host`, and a module over its limit, are not kept:
    /// the next job may succeed.
    pub(crate) async fn get(
        &self,
        module: ObjectRef,
        limits: &Limits,
        engines: &Engines,
        host: &dyn Host,
    ) -> Result<Arc<AST>> {
        let id = module.id;
        let load = async {
            // The size is checked before the content is read.
            check(host.size(id).await?, limits)?;
            let source = host.get(id).await?;
            let bytes = source.len() as u64;
            let engines = engines.clone();
            let parse = move || parse(&engines, id, &source);
            let task = tokio::task::spawn_blocking(parse).await;
            let parsed =
                task.map_err(|error| Error::runtime(format!("parsing failed: {error}")))?;
            Ok::<_, Error>(Entry { bytes, parsed })
        };
        let Entry { bytes, parsed } = self.0.get_or_insert_async(&id, load).await?;
        check(bytes, limits)?;
        parsed
    }
}

fn check(found: u64, limits: &Limits) -> Result<()> {
    let bytes = limits.module_bytes;
    if found > bytes { Err(Limit::Module { bytes, found }.into()) } else { Ok(()) }
}

fn parse(engines: &Engines, module: ObjectId, source: &[u8]) -> Result<Arc<AST>> {
    let bad = |problem| Error::new(Reason::BadModule { module, problem });
    let text = std::str::from_utf8(source).map_err(|error| bad(error.to_string()))?;
    // Deeply nested code needs more stack than a thread may have.
    let parsed = fiber::on_large_stack(|| engines.parser().compile(text))?;
    parsed.map(Arc::new).map_err(|error| bad(error.to_string()))
}
