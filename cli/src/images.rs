//! From what the user typed to an image reference that no name stands in.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use manifold_runtime_api::{EntryMode, ImageRef, Module, ObjectId, ObjectKind, TreeEntry};

use crate::args::Language;
use crate::error::CliError;
use crate::session::Session;

impl Session {
    /// Finds an image by its name in the standard tree, by reference, or in a file: `.wasm`, `.ts`, `.js`, or a directory with a
    /// `main.ts`. Of a standard guest in several languages, `language` says which, unless the name does.
    pub(crate) async fn image(&self, name: &str, language: Language) -> Result<String, CliError> {
        let std = self.dispatcher.read_tree(self.std)?;
        let named = match ImageRef::parse(name) {
            Ok(ImageRef::Std(name)) => name,
            Ok(ImageRef::Docker(container)) if !container.is_by_digest() => {
                if !self.allow_tags {
                    return Err(CliError::MovingTag { image: container.to_string() });
                }
                let digest = self.engine.digest(container.as_str()).await;
                return Ok(format!("docker://{}", digest.map_err(CliError::Engine)?));
            }
            Ok(other) => return Ok(other.to_string()),
            Err(_) => name.to_owned(),
        };
        let preferred = match language {
            Language::Wasm => None,
            other => std.get(format!("{named}.{}", other.name())),
        };
        let plain = named.strip_suffix(".wasm").unwrap_or(&named);
        if let Some(entry) = preferred.or_else(|| std.get(&named)).or_else(|| std.get(plain)) {
            return Ok(entry.id.to_string());
        }
        if let Some((language, module)) = self.module_at(Path::new(name))? {
            return Ok(self.dispatcher.put_image(self.host(language)?, module)?.to_string());
        }
        // The language says which of several a name means.
        let names = std.entries().iter().map(|entry| entry.name.to_string());
        let known = names.filter(|name| !name.contains('.')).collect();
        Err(CliError::NoSuchImage { name: name.to_owned(), known })
    }

    /// The host image hash of the runtime for `language`.
    pub(crate) fn host(&self, language: Language) -> Result<ObjectId, CliError> {
        let host = match language {
            Language::Wasm => self.hosts.wasm,
            Language::Ts => self.hosts.typescript,
            Language::Docker => self.hosts.container,
            Language::Serving => self.hosts.serving,
        };
        host.ok_or(CliError::BuiltWithoutV8)
    }

    /// The guest in the file or directory at `path`, if there is one.
    fn module_at(&self, path: &Path) -> Result<Option<(Language, Module)>, CliError> {
        let unreadable = |source| CliError::Unreadable { path: path.to_owned(), source };
        if MAINS.iter().any(|main| path.join(main).is_file()) {
            let id = self.dispatcher.put_tree(self.code_below(path)?)?;
            return Ok(Some((Language::Ts, Module { kind: ObjectKind::Tree, id })));
        }
        let language = match path.extension() {
            Some(extension) if extension == "wasm" => Language::Wasm,
            _ if is_script(path) => Language::Ts,
            _ => return Ok(None),
        };
        if !path.is_file() {
            return Ok(None);
        }
        let code = fs::read(path).map_err(unreadable)?;
        Ok(Some((language, Module { kind: ObjectKind::Blob, id: self.dispatcher.put_blob(code)? })))
    }

    /// The scripts in `directory` and below it, as tree entries. What is no script has no part in the module, and neither have
    /// installed packages and hidden directories.
    fn code_below(&self, directory: &Path) -> Result<Vec<TreeEntry>, CliError> {
        let unreadable = |source| CliError::Unreadable { path: directory.to_owned(), source };
        let mut entries = Vec::new();
        for entry in fs::read_dir(directory).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let (path, name) = (entry.path(), entry.file_name());
            let kind = entry.file_type().map_err(unreadable)?;
            if kind.is_dir() && name != "node_modules" && !name.as_bytes().starts_with(b".") {
                let below = self.code_below(&path)?;
                if !below.is_empty() {
                    entries.push(TreeEntry::new(name.as_bytes(), EntryMode::Tree, self.dispatcher.put_tree(below)?));
                }
            } else if kind.is_file() && is_script(&path) {
                let code = fs::read(&path).map_err(|source| CliError::Unreadable { path: path.clone(), source })?;
                entries.push(TreeEntry::new(name.as_bytes(), EntryMode::Blob, self.dispatcher.put_blob(code)?));
            }
        }
        Ok(entries)
    }
}

/// With which file a guest that is a directory begins.
const MAINS: [&str; 4] = ["main.ts", "main.mts", "main.js", "main.mjs"];

fn is_script(path: &Path) -> bool {
    matches!(path.extension().and_then(|extension| extension.to_str()), Some("ts" | "mts" | "js" | "mjs"))
}
