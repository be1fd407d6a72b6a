//! [`Module`]: the code of a guest, as a fixture supplies it.

use std::collections::BTreeMap;

use manifold_runtime_api::bytes::Bytes;
use manifold_runtime_api::{
    EntryMode, Error, Object, ObjectId, ObjectKind, ObjectRef, Result, Tree, TreeEntry,
};

/// The code of a guest: a blob, or a tree of files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Module {
    /// The content of a blob.
    Blob(Bytes),
    /// The files of a tree.
    Tree(Vec<ModuleFile>),
}

/// A file of a [`Module`] that is a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModuleFile {
    /// The path in the tree. Its parts are separated by `/`.
    pub path: String,
    /// The mode: [`EntryMode::Blob`], [`EntryMode::Executable`] or [`EntryMode::Symlink`].
    pub mode: EntryMode,
    /// The content.
    pub content: Bytes,
}

impl ModuleFile {
    /// Creates a regular file.
    pub fn new(path: impl Into<String>, content: impl Into<Bytes>) -> Self {
        Self { path: path.into(), mode: EntryMode::Blob, content: content.into() }
    }

    /// Sets the mode.
    #[must_use]
    pub fn mode(mut self, mode: EntryMode) -> Self {
        self.mode = mode;
        self
    }
}

impl Module {
    /// Creates a module that is a blob.
    pub fn blob(content: impl Into<Bytes>) -> Self {
        Self::Blob(content.into())
    }

    /// Creates a module that is a tree of files.
    pub fn tree(files: impl IntoIterator<Item = ModuleFile>) -> Self {
        Self::Tree(files.into_iter().collect())
    }

    /// Returns the kind of the module's object.
    pub fn kind(&self) -> ObjectKind {
        match self {
            Self::Blob(_) => ObjectKind::Blob,
            Self::Tree(_) => ObjectKind::Tree,
        }
    }

    /// Writes the module's objects with `write`, each after the objects that it names.
    pub(crate) fn write(
        &self,
        write: &mut dyn FnMut(Object) -> Result<ObjectId>,
    ) -> Result<ObjectRef> {
        match self {
            Self::Blob(content) => Ok(ObjectRef::blob(write(Object::blob(content.clone()))?)),
            Self::Tree(files) => {
                let files: Vec<_> = files.iter().map(|file| (file.path.as_str(), file)).collect();
                Ok(ObjectRef::tree(write_tree(&files, write)?))
            }
        }
    }
}

/// Writes the tree of `files`, whose paths are relative to it.
fn write_tree(
    files: &[(&str, &ModuleFile)],
    write: &mut dyn FnMut(Object) -> Result<ObjectId>,
) -> Result<ObjectId> {
    let mut entries = Vec::new();
    let mut directories: BTreeMap<&str, Vec<(&str, &ModuleFile)>> = BTreeMap::new();
    for (path, file) in files {
        match path.split_once('/') {
            Some((directory, rest)) => directories.entry(directory).or_default().push((rest, file)),
            None if file.mode.object_kind() == Some(ObjectKind::Blob) => {
                let id = write(Object::blob(file.content.clone()))?;
                entries.push(TreeEntry::new(*path, file.mode, id));
            }
            None => {
                let problem = format!("file {} of the module has mode {}", file.path, file.mode);
                return Err(Error::runtime(problem));
            }
        }
    }
    for (name, files) in directories {
        entries.push(TreeEntry::new(name, EntryMode::Tree, write_tree(&files, write)?));
    }
    write(Tree::new(entries)?.to_object())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_has_its_files_and_directories() {
        let module = Module::tree([
            ModuleFile::new("main", "1"),
            ModuleFile::new("lib/a", "2").mode(EntryMode::Executable),
            ModuleFile::new("lib/b/c", "3"),
        ]);
        let mut written = Vec::new();
        let root = module
            .write(&mut |object| {
                written.push(object.clone());
                Ok(object.id())
            })
            .unwrap();
        assert_eq!((root.kind, module.kind()), (ObjectKind::Tree, ObjectKind::Tree));
        let tree = |id| {
            let object = written.iter().find(|object| object.id() == id).unwrap();
            Tree::decode(&object.content).unwrap()
        };
        let lib = tree(tree(root.id).get("lib").unwrap().id);
        assert_eq!(lib.get("a").unwrap().mode, EntryMode::Executable);
        assert_eq!(tree(lib.get("b").unwrap().id).len(), 1);
    }

    #[test]
    fn a_file_cannot_have_the_mode_of_a_tree() {
        let module = Module::tree([ModuleFile::new("main", "").mode(EntryMode::Tree)]);
        assert!(module.write(&mut |object| Ok(object.id())).is_err());
    }
}
