//! Prepares a guest's code once for each module: reads it from the store, transpiles it, and
//! resolves its imports.
//!
//! [`sources`] reads and links a module, [`transpile`] turns TypeScript into JavaScript in the
//! processes that [`transpiler`] keeps, and [`Programs`] caches the result.

mod helper;
mod sources;
mod transpile;
mod transpiler;

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

use deno_ast::swc::sourcemap::SourceMap;
use manifold_runtime_api::{
    Error, Host, JobPhase, Limits, ObjectId, ObjectRef, Report, Result, Status,
};
use quick_cache::sync::Cache;

pub(crate) use transpile::TRANSPILER;

use crate::pool::Pool;
use sources::Sources;
use transpiler::Transpiler;

/// The module that guests import their operations from.
pub(crate) const BUILT_IN: &str = "manifold:guest";

/// The files of a guest. The first one contains the entry.
pub(crate) struct Program {
    pub(crate) files: Vec<File>,
}

/// One file of a guest.
pub(crate) struct File {
    /// The path in the module's tree.
    pub(crate) path: String,
    pub(crate) script: Arc<Script>,
    /// The index of the file that each specifier refers to. The index after the last file is the
    /// built-in module.
    pub(crate) imports: HashMap<String, usize>,
    /// V8's code cache from the first evaluation, which saves parsing.
    pub(crate) compiled: OnceLock<Vec<u8>>,
}

/// The code of a file that V8 runs.
pub(crate) struct Script {
    pub(crate) code: String,
    /// Maps `code` to the guest's own text, if they differ.
    pub(crate) map: Option<SourceMap>,
}

impl Script {
    /// Maps a position in `code` to the guest's own text. Lines and columns start at 1.
    pub(crate) fn place(&self, line: u32, column: u32) -> (u32, u32) {
        // Source maps start at 0.
        let token = self
            .map
            .as_ref()
            .and_then(|map| map.lookup_token(line.saturating_sub(1), column.saturating_sub(1)));
        token.map_or((line, column), |token| (token.get_src_line() + 1, token.get_src_col() + 1))
    }
}

/// The number of programs that are cached.
const MAX_CACHED_PROGRAMS: usize = 256;

type ProgramResult = Result<Arc<Program>>;

/// A cache of prepared programs, and of permanent failures to prepare one.
pub(crate) struct Programs {
    programs: Arc<Cache<ObjectId, ProgramResult>>,
    transpiler: Arc<Transpiler>,
}

impl Programs {
    pub(crate) fn new() -> Self {
        Self {
            programs: Arc::new(Cache::new(MAX_CACHED_PROGRAMS)),
            transpiler: Arc::new(Transpiler::new()),
        }
    }

    /// Returns the program of a module, and prepares it if it is not cached.
    pub(crate) async fn get(
        &self,
        module: ObjectRef,
        limits: &Limits,
        host: &dyn Host,
        pool: &Arc<Pool>,
    ) -> ProgramResult {
        if let Some(program) = self.programs.get(&module.id) {
            return program;
        }
        host.report(Report::Phase(JobPhase::Prepare));
        let sources = Sources::read(module, limits, host).await?;
        let (cache, time) = (Arc::clone(&self.programs), limits.compute_time);
        let (transpiler, pool) = (Arc::clone(&self.transpiler), Arc::clone(pool));
        // A separate task, so that cancelling this job does not discard the work for other and
        // later jobs.
        let task = tokio::spawn(async move {
            let place = match cache.get_value_or_guard_async(&module.id).await {
                Ok(program) => return program,
                Err(place) => place,
            };
            let program = sources.link(module.id, &transpiler, &pool, time).await;
            if program.as_ref().err().is_none_or(|error| error.status() == Status::Permanent) {
                // Fails if the placeholder was evicted in the meantime. Then the next job prepares
                // the module again.
                let _ = place.insert(program.clone());
            }
            program
        });
        let lost = |error| {
            Error::runtime(format!("the task that prepares module {} failed: {error}", module.id))
        };
        task.await.map_err(lost)?
    }
}
