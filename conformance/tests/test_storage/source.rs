//! A source that supplies the objects of a list.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use manifold_conformance::SourceFixture;
use manifold_dispatcher::ObjectSource;
use manifold_runtime_api::bytes::Bytes;
use manifold_runtime_api::{
    EntryMode, Error, Object, ObjectId, ObjectKind, Reason, Result, Tree, TreeEntry,
};

/// A violation of the contract of a source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SourceFlaw {
    /// The content of large objects is damaged.
    DamagedContent,
    /// The kind of every object is reported as a blob.
    EverythingIsABlob,
    /// The size of an object includes its header.
    SizesIncludeHeaders,
    /// Ranges include their ends.
    InclusiveRanges,
    /// The first object is found under every id.
    FindsEveryId,
    /// Commits are not found, instead of being an error.
    CommitsAreMissing,
    /// Reading while another thread reads is an error.
    OneReaderOnly,
}

/// Supplies one source.
pub(crate) struct TestSource {
    source: Arc<List>,
    list: Vec<Object>,
}

struct List {
    objects: HashMap<ObjectId, Object>,
    flaw: Option<SourceFlaw>,
    readers: AtomicUsize,
}

/// The id of an object that is neither a blob nor a tree.
fn commit() -> ObjectId {
    ObjectId::of(ObjectKind::Blob, b"stands for a commit")
}

impl TestSource {
    /// A source without flaws.
    pub(crate) fn new() -> Self {
        Self::build(None)
    }

    /// A source with a flaw.
    pub(crate) fn with_flaw(flaw: SourceFlaw) -> Self {
        Self::build(Some(flaw))
    }

    fn build(flaw: Option<SourceFlaw>) -> Self {
        let mut list =
            vec![Object::blob(""), Object::blob("hello"), Object::blob(vec![7; 1 << 20])];
        let entries = list
            .iter()
            .enumerate()
            .map(|(number, blob)| TreeEntry::new(format!("{number}"), EntryMode::Blob, blob.id()));
        let tree = Tree::new(entries).unwrap().to_object();
        list.extend([tree, Tree::empty().to_object()]);
        let objects = list.iter().map(|object| (object.id(), object.clone())).collect();
        Self { source: Arc::new(List { objects, flaw, readers: AtomicUsize::new(0) }), list }
    }
}

impl SourceFixture for TestSource {
    fn source(&self) -> Arc<dyn ObjectSource> {
        Arc::clone(&self.source) as Arc<dyn ObjectSource>
    }

    fn objects(&self) -> Vec<Object> {
        self.list.clone()
    }

    fn object_of_another_kind(&self) -> Option<ObjectId> {
        Some(commit())
    }
}

impl ObjectSource for List {
    fn read(&self, id: ObjectId) -> Result<Option<Object>> {
        if id == commit() && self.flaw != Some(SourceFlaw::CommitsAreMissing) {
            let (expected, found) = ("blob", "commit");
            return Err(Error::new(Reason::WrongKind { id, expected, found }));
        }
        let found = self.objects.get(&id).cloned();
        match self.flaw {
            Some(SourceFlaw::DamagedContent) => Ok(found.map(|mut object| {
                object.content.truncate(1 << 10);
                object
            })),
            Some(SourceFlaw::FindsEveryId) => {
                Ok(found.or_else(|| self.objects.values().next().cloned()))
            }
            Some(SourceFlaw::OneReaderOnly) => {
                let others = self.readers.fetch_add(1, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(1));
                self.readers.fetch_sub(1, Ordering::SeqCst);
                if others > 0 { Err(Error::store("busy")) } else { Ok(found) }
            }
            _ => Ok(found),
        }
    }

    fn kind(&self, id: ObjectId) -> Result<Option<ObjectKind>> {
        let kind = self.read(id)?.map(|object| object.kind);
        let is_blob = self.flaw == Some(SourceFlaw::EverythingIsABlob);
        Ok(kind.map(|kind| if is_blob { ObjectKind::Blob } else { kind }))
    }

    fn size(&self, id: ObjectId) -> Result<Option<u64>> {
        let header = if self.flaw == Some(SourceFlaw::SizesIncludeHeaders) { 7 } else { 0 };
        Ok(self.read(id)?.map(|object| object.content.len() as u64 + header))
    }

    fn read_range(&self, id: ObjectId, range: Range<u64>) -> Result<Option<Bytes>> {
        let inclusive = u64::from(self.flaw == Some(SourceFlaw::InclusiveRanges));
        Ok(self.read(id)?.map(|object| {
            let length = object.content.len() as u64;
            let end = range.end.saturating_add(inclusive).min(length);
            object.content.slice(range.start.min(end) as usize..end as usize)
        }))
    }
}
