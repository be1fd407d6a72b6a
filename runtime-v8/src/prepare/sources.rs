//! The source files of a module: reads them from the store, and links those that the main file
//! imports.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use deno_ast::swc::sourcemap::SourceMap;
use manifold_runtime_api::bstr::ByteSlice;
use manifold_runtime_api::{
    EntryMode, Error, Host, Limit, Limits, ObjectId, ObjectKind, ObjectRef, Reason, Result,
};

use super::transpiler::Transpiler;
use super::{BUILT_IN, File, Program, ProgramResult, Script, transpile};
use crate::pool::Pool;

/// The path of a module that is a blob, and the main file of a module that is a tree.
const MAIN: &str = "main.ts";
/// Other names of the main file, tried in this order after [`MAIN`].
const OTHER_MAINS: [&str; 3] = ["main.mts", "main.js", "main.mjs"];

/// The bytes that every entry of a module's tree counts, in addition to its content.
const ENTRY_BYTES: usize = 32;

/// The text of every code file in a module.
pub(super) struct Sources {
    main: String,
    files: HashMap<String, String>,
}

impl Sources {
    /// Reads the code files of the module.
    ///
    /// # Errors
    /// - `BadModule` if a file is not UTF-8, or the tree has no main file.
    /// - `LimitBreached` if the module is larger than `limits` allow.
    /// - The error of the host, if it cannot read an object.
    pub(super) async fn read(module: ObjectRef, limits: &Limits, host: &dyn Host) -> Result<Self> {
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
    pub(super) async fn link(
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
