//! Prepares a guest's code once for each module: reads it from the store, transpiles it, and
//! resolves its imports.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use deno_ast::swc::sourcemap::SourceMap;
use manifold_runtime_api::bstr::ByteSlice;
use manifold_runtime_api::{
    EntryMode, Error, Host, Limit, Limits, ObjectId, ObjectKind, ObjectRef, Reason, Result, Status,
};
use quick_cache::sync::Cache;

use crate::pool::Pool;
use crate::transpile;
use crate::transpiler::Transpiler;

/// The module that guests import their operations from.
pub(crate) const BUILT_IN: &str = "manifold:guest";

/// The path of a module that is a blob, and the main file of a module that is a tree.
const MAIN: &str = "main.ts";
/// Other names of the main file, tried in this order after [`MAIN`].
const OTHER_MAINS: [&str; 3] = ["main.mts", "main.js", "main.mjs"];

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

/// The bytes that every entry of a module's tree counts, in addition to its content.
const ENTRY_BYTES: usize = 32;

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

/// The text of every code file in a module.
struct Sources {
    main: String,
    files: HashMap<String, String>,
}

impl Sources {
    async fn read(module: ObjectRef, limits: &Limits, host: &dyn Host) -> Result<Self> {
        let mut left = limits.module_bytes;
        let mut sources = Self { main: MAIN.to_owned(), files: HashMap::new() };
        if module.kind == ObjectKind::Blob {
            let text = read_text(module.id, MAIN, module.id, &mut left, limits, host).await?;
            sources.files.insert(MAIN.to_owned(), text);
            return Ok(sources);
        }
        let mut trees = VecDeque::from([(String::new(), module.id)]);
        while let Some((directory, tree)) = trees.pop_front() {
            // Other tasks of this thread must not wait for the whole tree.
            tokio::task::yield_now().await;
            for entry in host.tree(tree).await?.entries() {
                charge(ENTRY_BYTES, &mut left, limits)?;
                // A name that is not UTF-8 cannot be imported.
                let Ok(name) = entry.name.to_str() else { continue };
                let path = format!("{directory}{name}");
                match entry.mode {
                    EntryMode::Tree => {
                        charge(path.len(), &mut left, limits)?;
                        trees.push_back((path + "/", entry.id));
                    }
                    EntryMode::Blob | EntryMode::Executable if transpile::is_code(name) => {
                        let text =
                            read_text(entry.id, &path, module.id, &mut left, limits, host).await?;
                        sources.files.insert(path, text);
                    }
                    _ => {}
                }
            }
        }
        let mains = std::iter::once(MAIN).chain(OTHER_MAINS);
        sources.main = mains
            .into_iter()
            .find(|main| sources.files.contains_key(*main))
            .map(str::to_owned)
            .ok_or_else(|| {
                bad(
                    module.id,
                    format!("the module's tree has no file {MAIN} (or {})", OTHER_MAINS.join(", ")),
                )
            })?;
        Ok(sources)
    }

    /// The maximum size of all TypeScript in a module, in bytes. The transpiler takes a hundred
    /// times as much memory.
    const TYPESCRIPT_BYTES: usize = 4 << 20;

    /// Transpiles TypeScript files, and resolves imports starting from the main file. Files that
    /// are not imported are not parsed.
    async fn link(
        mut self,
        module: ObjectId,
        transpiler: &Arc<Transpiler>,
        pool: &Pool,
        time: Duration,
    ) -> ProgramResult {
        let mut order = vec![self.main.clone()];
        let mut seen = HashSet::from([self.main.clone()]);
        let mut linked = Vec::new();
        let mut typescript = 0;
        while let Some(path) = order.get(linked.len()).cloned() {
            // Each file is visited once, so its text can be taken.
            let text = self.files.get_mut(&path).map(std::mem::take).unwrap_or_default();
            let script = if transpile::has_types(&path) {
                typescript += text.len();
                if typescript > Self::TYPESCRIPT_BYTES {
                    let problem =
                        "the module has more than 4 MiB of TypeScript; compile it to JavaScript";
                    return Err(bad(module, problem.to_owned()));
                }
                let (code, map) = transpiler.transpile(module, path.clone(), text, time).await?;
                let map = SourceMap::from_slice(map.as_bytes());
                let map = map.map_err(|error| {
                    Error::runtime(format!("the source map of {path} is invalid: {error}"))
                })?;
                Script { code, map: Some(map) }
            } else {
                Script { code: text, map: None }
            };
            let script = Arc::new(script);
            let imports = match pool.read_module(path.clone(), Arc::clone(&script)).await? {
                Ok(imports) => imports,
                Err(problem) => return Err(bad(module, problem.at(&path, &script))),
            };
            let mut targets = Vec::new();
            for specifier in imports {
                if specifier == BUILT_IN {
                    continue;
                }
                let target = resolve(&path, &specifier).and_then(|target| self.find(target));
                let target = target.map_err(|problem| {
                    bad(module, format!("{path} imports {specifier:?}: {problem}"))
                })?;
                if seen.insert(target.clone()) {
                    order.push(target.clone());
                }
                targets.push((specifier, target));
            }
            linked.push((path, script, targets));
        }
        let places: HashMap<String, usize> = order.into_iter().zip(0..).collect();
        let files = linked.into_iter().map(|(path, script, targets)| {
            let targets = targets
                .into_iter()
                .filter_map(|(specifier, target)| Some((specifier, *places.get(&target)?)));
            let imports = targets.chain([(BUILT_IN.to_owned(), places.len())]).collect();
            File { path, script, imports, compiled: OnceLock::new() }
        });
        Ok(Arc::new(Program { files: files.collect() }))
    }

    fn find(&self, path: String) -> Result<String, String> {
        if self.files.contains_key(&path) {
            return Ok(path);
        }
        Err(if transpile::is_code(&path) {
            format!("the module has no file {path}")
        } else {
            "only files that end in .ts, .mts, .js or .mjs can be imported, with the extension in \
             the specifier"
                .to_owned()
        })
    }
}

async fn read_text(
    id: ObjectId,
    path: &str,
    module: ObjectId,
    left: &mut u64,
    limits: &Limits,
    host: &dyn Host,
) -> Result<String> {
    let content = host.get(id).await?;
    charge(content.len(), left, limits)?;
    let text = content.to_str().map_err(|_| bad(module, format!("{path} is not UTF-8")))?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text).to_owned())
}

/// Counts `bytes` against the limit on a module.
fn charge(bytes: usize, left: &mut u64, limits: &Limits) -> Result<()> {
    let bytes = bytes as u64;
    let found = limits.module_bytes.saturating_sub(*left).saturating_add(bytes);
    *left = left.checked_sub(bytes).ok_or(Limit::Module { bytes: limits.module_bytes, found })?;
    Ok(())
}

/// Resolves `specifier` in the file at `path` to a path in the module.
fn resolve(path: &str, specifier: &str) -> Result<String, String> {
    if !specifier.starts_with("./") && !specifier.starts_with("../") {
        return Err(format!(
            "a guest can import only {BUILT_IN:?} and, by a relative path, files of its own module"
        ));
    }
    let mut parts: Vec<&str> = path.split('/').collect();
    parts.pop();
    for part in specifier.split('/') {
        match part {
            "." => {}
            ".." if parts.pop().is_none() => {
                return Err("the path is outside the module's tree".to_owned());
            }
            ".." => {}
            part => parts.push(part),
        }
    }
    Ok(parts.join("/"))
}

fn bad(module: ObjectId, problem: String) -> Error {
    Error::new(Reason::BadModule { module, problem })
}
