//! Resolves an image that the user named to an image reference without names or tags.

use std::ffi::OsStr;
use std::fs;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use manifold_runtime_api::{EntryMode, ImageRef, ObjectId, ObjectRef, TreeEntry};
use manifold_standard_guests::CONTAINER_GUESTS;

use crate::args::Language;
use crate::error::CliError;
use crate::session::Session;

impl Session {
    /// Finds an image by its name in the standard tree, by reference, or in a file: `.wasm`, `.ts`,
    /// `.js`, or a directory with a `main.ts`. If a standard guest exists in several languages,
    /// `language` selects one, unless the name does.
    pub(crate) async fn image(&self, name: &str, language: Language) -> Result<String, CliError> {
        let std = self.dispatcher.read_tree(self.std)?;
        let standard = self.dispatcher.read_tree(self.standard)?;
        let find = |name: &str| std.get(name).or_else(|| standard.get(name));
        let name = name.trim_ascii();
        let named = match ImageRef::parse(name) {
            Ok(ImageRef::Std(name)) => name,
            Ok(ImageRef::Docker(container)) if !container.is_by_digest() => {
                if !self.allow_tags {
                    return Err(CliError::MovingTag { image: container.to_string() });
                }
                let digest = self.engine.digest(container.as_str()).await;
                return Ok(format!("docker://{}", digest.map_err(CliError::Engine)?));
            }
            Ok(ImageRef::Node(node)) => return Ok(self.wrapped(node, language)?.to_string()),
            Ok(other) => return Ok(other.to_string()),
            Err(_) => name.to_owned(),
        };
        let preferred = match language {
            Language::Wasm => None,
            other => find(&format!("{named}.{}", other.name())),
        };
        let is_for_containers = matches!(language, Language::Docker | Language::Serving);
        if is_for_containers && CONTAINER_GUESTS.is_empty() && standard.get(&named).is_some() {
            return Err(CliError::BuiltWithoutContainerGuests);
        }
        let plain = named.strip_suffix(".wasm").unwrap_or(&named);
        if let Some(entry) = preferred.or_else(|| find(&named)).or_else(|| find(plain)) {
            return self.reference(entry);
        }
        if let Some((language, module)) = self.module_at(Path::new(name))? {
            let image = self.dispatcher.put_image(self.host(language)?, module)?;
            self.hold(image)?;
            self.tracing.name_image(image, name);
            return Ok(image.to_string());
        }
        let is_path = named.contains('/') && !named.contains("://") || named.ends_with(".wasm");
        if is_path {
            return Err(CliError::NoSuchPath { path: name.into() });
        }
        // Names with a language suffix, and the second name of fold, are not listed.
        let names = std.entries().iter().map(|entry| entry.name.to_string());
        let known = names.filter(|name| !name.contains('.') && name != "fold-wasm").collect();
        Err(CliError::NoSuchImage { name: name.to_owned(), known })
    }

    /// Returns the host image hash of the runtime for `language`.
    pub(crate) fn host(&self, language: Language) -> Result<ObjectId, CliError> {
        let host = match language {
            Language::Wasm => self.hosts.wasm,
            Language::Ts => self.hosts.typescript,
            Language::Docker => self.hosts.container,
            Language::Serving => self.hosts.serving,
        };
        host.ok_or(CliError::BuiltWithoutV8)
    }

    /// Returns the guest in the file or directory at `path`, or `None` if nothing is there.
    fn module_at(&self, path: &Path) -> Result<Option<(Language, ObjectRef)>, CliError> {
        let Ok(metadata) = fs::metadata(path) else { return Ok(None) };
        if metadata.is_dir() {
            if !ENTRY_FILES.iter().any(|main| path.join(main).is_file()) {
                return Err(CliError::NoEntryFile {
                    path: path.to_owned(),
                    mains: ENTRY_FILES.join(", "),
                });
            }
            let id = self.dispatcher.put_tree(self.code_below(path, &mut Vec::new())?)?;
            return Ok(Some((Language::Ts, ObjectRef::tree(id))));
        }
        if !metadata.is_file() {
            return Err(CliError::NotAGuest { path: path.to_owned() });
        }
        let extension = path.extension().and_then(OsStr::to_str).unwrap_or_default();
        let language = match extension {
            "wasm" => Language::Wasm,
            _ if is_script(path) => Language::Ts,
            // A wasm module is recognized under any name.
            _ if starts_with(path, b"\0asm")? => Language::Wasm,
            _ => return Err(CliError::NotAGuest { path: path.to_owned() }),
        };
        let id = self.dispatcher.put_blob(self.read_code(path, metadata.len())?)?;
        if matches!(extension, "js" | "mjs") {
            // A module that is a blob is read as TypeScript, in which some JavaScript has another
            // meaning. A tree keeps the extension.
            let entry = TreeEntry::new(format!("main.{extension}"), EntryMode::Blob, id);
            let id = self.dispatcher.put_tree([entry])?;
            return Ok(Some((language, ObjectRef::tree(id))));
        }
        Ok(Some((language, ObjectRef::blob(id))))
    }

    /// Reads a file of code. Errors if it is larger than a module may be.
    fn read_code(&self, path: &Path, bytes: u64) -> Result<Vec<u8>, CliError> {
        if bytes > self.largest_module {
            return Err(CliError::LargeGuest {
                path: path.to_owned(),
                bytes,
                bound: self.largest_module,
            });
        }
        fs::read(path).map_err(|source| CliError::Unreadable { path: path.to_owned(), source })
    }

    /// Puts the scripts in `directory` and below it, and returns their tree entries. Symbolic links
    /// are followed. Files that are not scripts, `node_modules` and hidden directories are left
    /// out. `ancestors` are the directories that contain this one, to find cycles of links.
    fn code_below(
        &self,
        directory: &Path,
        ancestors: &mut Vec<PathBuf>,
    ) -> Result<Vec<TreeEntry>, CliError> {
        let unreadable = |source| CliError::Unreadable { path: directory.to_owned(), source };
        let canonical = directory.canonicalize().map_err(unreadable)?;
        if ancestors.contains(&canonical) {
            return Err(CliError::LinkCycle { path: directory.to_owned() });
        }
        ancestors.push(canonical);
        let mut entries = Vec::new();
        for entry in fs::read_dir(directory).map_err(unreadable)? {
            let entry = entry.map_err(unreadable)?;
            let (path, name) = (entry.path(), entry.file_name());
            let unreadable = |source| CliError::Unreadable { path: path.clone(), source };
            let metadata = match fs::metadata(&path) {
                Ok(metadata) => metadata,
                // A dangling link matters only if it is a script.
                Err(_) if !is_script(&path) => continue,
                Err(error) => return Err(unreadable(error)),
            };
            if metadata.is_dir() && name != "node_modules" && !name.as_bytes().starts_with(b".") {
                let below = self.code_below(&path, ancestors)?;
                if !below.is_empty() {
                    entries.push(TreeEntry::new(
                        name.as_bytes(),
                        EntryMode::Tree,
                        self.dispatcher.put_tree(below)?,
                    ));
                }
            } else if metadata.is_file() && is_script(&path) {
                let code = self.read_code(&path, metadata.len())?;
                entries.push(TreeEntry::new(
                    name.as_bytes(),
                    EntryMode::Blob,
                    self.dispatcher.put_blob(code)?,
                ));
            }
        }
        ancestors.pop();
        Ok(entries)
    }
}

/// The files that can be the entry of a guest that is a directory.
const ENTRY_FILES: [&str; 4] = ["main.ts", "main.mts", "main.js", "main.mjs"];

fn is_script(path: &Path) -> bool {
    matches!(path.extension().and_then(OsStr::to_str), Some("ts" | "mts" | "js" | "mjs"))
}

/// Returns whether the file at `path` starts with `bytes`.
fn starts_with(path: &Path, bytes: &[u8]) -> Result<bool, CliError> {
    let mut beginning = Vec::new();
    let read = fs::File::open(path)
        .and_then(|file| file.take(bytes.len() as u64).read_to_end(&mut beginning));
    read.map_err(|source| CliError::Unreadable { path: path.to_owned(), source })?;
    Ok(beginning == bytes)
}
