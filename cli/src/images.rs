//! From what the user typed to an image reference that no name stands in.

use std::fs;
use std::path::Path;

use manifold_runtime_api::{ImageRef, Module, ObjectKind};

use crate::error::CliError;
use crate::session::Session;

impl Session {
    /// Finds an image by its name in the standard tree, by reference, or in a `.wasm` file.
    pub(crate) fn image(&self, name: &str) -> Result<String, CliError> {
        let std = self.dispatcher.read_tree(self.std)?;
        let named = match ImageRef::parse(name) {
            Ok(ImageRef::Std(name)) => name,
            Ok(other) => return Ok(other.to_string()),
            Err(_) => name.to_owned(),
        };
        if let Some(entry) = std.get(&named) {
            return Ok(entry.id.to_string());
        }
        let path = Path::new(name);
        if path.extension().is_some_and(|extension| extension == "wasm") && path.exists() {
            let code = fs::read(path).map_err(|source| CliError::Unreadable { path: path.to_owned(), source })?;
            let module = Module { kind: ObjectKind::Blob, id: self.dispatcher.put_blob(code)? };
            return Ok(self.dispatcher.put_image(self.wasm, module)?.to_string());
        }
        let known = std.entries().iter().map(|entry| entry.name.to_string()).collect();
        Err(CliError::NoSuchImage { name: name.to_owned(), known })
    }
}
