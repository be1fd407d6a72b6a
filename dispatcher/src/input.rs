//! [`Input`]: a value that becomes an object when it is used.

use std::path::PathBuf;

use bytes::Bytes;
use manifold_runtime_api::bstr::BString;
use manifold_runtime_api::{
    EntryMode, Error, Object, ObjectId, ObjectRef, Result, Tree, TreeEntry,
};

use crate::objects::Objects;

/// A value that becomes an object when it is used as an argument or as a module: text, bytes, a
/// file, a tree, or an object that is stored already.
///
/// ```
/// use manifold_dispatcher::{Dispatcher, Input};
///
/// let dispatcher = Dispatcher::builder().build()?;
/// let text = dispatcher.put("hello")?;
/// let tree = dispatcher.put(Input::tree([("a.txt", "hello".into()), ("b.txt", text.into())]))?;
/// assert_eq!(dispatcher.read_tree(tree.id)?.len(), 2);
/// # Ok::<(), manifold_dispatcher::api::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Input(Kind);

#[derive(Debug, Clone)]
enum Kind {
    Blob(Bytes),
    File(PathBuf),
    Tree(Vec<(BString, Input)>),
    Object(ObjectRef),
    Id(ObjectId),
}

impl Input {
    /// Creates a blob with the content of a file, which is read when the value is used.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self(Kind::File(path.into()))
    }

    /// Creates a tree of named values. Files in it are not executable.
    pub fn tree<N: Into<BString>>(entries: impl IntoIterator<Item = (N, Self)>) -> Self {
        Self(Kind::Tree(entries.into_iter().map(|(name, input)| (name.into(), input)).collect()))
    }

    /// Stores the value and returns the object that it became.
    pub(crate) fn store(&self, objects: &Objects) -> Result<ObjectRef> {
        match &self.0 {
            Kind::Blob(content) => put_blob(objects, content.clone()),
            Kind::File(path) => {
                let content = std::fs::read(path).map_err(|error| {
                    Error::store(format!("cannot read {}: {error}", path.display()))
                })?;
                put_blob(objects, content.into())
            }
            Kind::Tree(entries) => put_tree(objects, Tree::empty(), entries),
            Kind::Object(object) => {
                objects.check(object.id, object.kind)?;
                Ok(*object)
            }
            Kind::Id(id) => {
                let kind = objects.kind(*id)?.ok_or_else(|| Error::missing(*id))?;
                Ok(ObjectRef { kind, id: *id })
            }
        }
    }
}

fn put_blob(objects: &Objects, content: Bytes) -> Result<ObjectRef> {
    Ok(ObjectRef::blob(objects.store.write(Object::blob(content))?))
}

/// Stores the entries of `base`, with those in `entries` added. An entry replaces one of `base` with
/// the same name.
pub(crate) fn put_tree(
    objects: &Objects,
    base: Tree,
    entries: &[(BString, Input)],
) -> Result<ObjectRef> {
    let mut all = base.into_entries();
    all.retain(|kept| entries.iter().all(|(name, _)| *name != kept.name));
    for (name, input) in entries {
        let object = input.store(objects)?;
        all.push(TreeEntry::new(name.clone(), EntryMode::plain(object.kind), object.id));
    }
    let tree = Tree::new(all)?;
    Ok(ObjectRef::tree(objects.write_tree(&tree, tree.to_object())?))
}

impl From<ObjectRef> for Input {
    fn from(object: ObjectRef) -> Self {
        Self(Kind::Object(object))
    }
}

/// The object may be a blob or a tree.
impl From<ObjectId> for Input {
    fn from(id: ObjectId) -> Self {
        Self(Kind::Id(id))
    }
}

impl From<Bytes> for Input {
    fn from(content: Bytes) -> Self {
        Self(Kind::Blob(content))
    }
}

impl From<Vec<u8>> for Input {
    fn from(content: Vec<u8>) -> Self {
        Self(Kind::Blob(content.into()))
    }
}

impl From<&[u8]> for Input {
    fn from(content: &[u8]) -> Self {
        Self(Kind::Blob(Bytes::copy_from_slice(content)))
    }
}

impl From<String> for Input {
    fn from(text: String) -> Self {
        Self(Kind::Blob(text.into()))
    }
}

impl From<&str> for Input {
    fn from(text: &str) -> Self {
        text.as_bytes().into()
    }
}
