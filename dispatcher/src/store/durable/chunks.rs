//! The data of a store: chunks with many small values, and large contents by themselves.
//! [`memo_value`](super::memo_value) has the values of memo entries.
//!
//! A chunk is written once, by one commit. A value in it begins with its id, so that data which an
//! index finds by a part of an id is compared with all of it.

use bytes::Bytes;
use manifold_runtime_api::{Object, ObjectId, ObjectKind};

use super::format::{kind_code, kind_of};
use super::index::Place;
use super::memo_value::{Bases, Memo};

/// The maximum length of a chunk in bytes. With what the database adds, it fits into a page of
/// 64 KiB.
pub(super) const MAX_CHUNK_BYTES: usize = (64 << 10) - 128;
/// Contents up to this length, in bytes, are part of a chunk.
pub(super) const MAX_INLINE_BYTES: usize = 16 << 10;
/// The length that marks content which is stored by itself.
const SEPARATE: u32 = u32::MAX;

/// An object in a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ObjectValue<'a> {
    pub(super) id: ObjectId,
    pub(super) kind: ObjectKind,
    pub(super) content: Content<'a>,
}

/// Where the content of an object is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content<'a> {
    Inline(&'a [u8]),
    /// By itself, under this number.
    Separate {
        number: u64,
        length: u64,
    },
}

impl Content<'_> {
    /// Returns the length in bytes.
    pub(super) fn length(&self) -> u64 {
        match self {
            Self::Inline(content) => content.len() as u64,
            Self::Separate { length, .. } => *length,
        }
    }

    /// Returns the number of content that is stored by itself.
    pub(super) fn number(&self) -> Option<u64> {
        match self {
            Self::Inline(_) => None,
            Self::Separate { number, .. } => Some(*number),
        }
    }
}

impl<'a> ObjectValue<'a> {
    /// Decodes the object at the beginning of `bytes`. `None` if it is malformed.
    pub(super) fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (id, rest) = decode_id(bytes)?;
        let (&[kind], rest) = rest.split_first_chunk()?;
        let (length, rest) = rest.split_first_chunk()?;
        let content = match u32::from_le_bytes(*length) {
            SEPARATE => {
                let (number, rest) = rest.split_first_chunk()?;
                let (length, _) = rest.split_first_chunk()?;
                Content::Separate {
                    number: u64::from_le_bytes(*number),
                    length: u64::from_le_bytes(*length),
                }
            }
            length => Content::Inline(rest.get(..usize::try_from(length).ok()?)?),
        };
        Some(Self { id, kind: kind_of(kind)?, content })
    }

    /// Returns the object if its content has its id. `separate` reads content that is stored by
    /// itself.
    pub(super) fn object<E>(
        &self,
        separate: impl FnOnce(u64) -> Result<Option<Bytes>, E>,
    ) -> Result<Option<Object>, E> {
        let content = match self.content {
            Content::Inline(content) => Bytes::copy_from_slice(content),
            Content::Separate { number, .. } => match separate(number)? {
                Some(content) => content,
                None => return Ok(None),
            },
        };
        let object = Object { kind: self.kind, content };
        Ok((object.id() == self.id).then_some(object))
    }

    /// Returns the length in bytes of the encoded value of an object with this id, a content of
    /// this length, and this number if the content is stored by itself.
    pub(super) fn bytes(id: ObjectId, length: u64, number: Option<u64>) -> usize {
        let content = match number {
            Some(_) => 16,
            None => usize::try_from(length).unwrap_or(usize::MAX),
        };
        content.saturating_add(1 + id.as_bytes().len() + 1 + 4)
    }

    /// Returns the length of the encoded value in bytes.
    pub(super) fn length(&self) -> usize {
        Self::bytes(self.id, self.content.length(), self.content.number())
    }

    /// Adds the encoded value to `value`.
    pub(super) fn encode(&self, value: &mut Vec<u8>) {
        encode_id(self.id, value);
        value.push(kind_code(self.kind));
        match self.content {
            Content::Inline(content) => {
                let length = u32::try_from(content.len()).unwrap_or(SEPARATE);
                value.extend_from_slice(&length.to_le_bytes());
                value.extend_from_slice(content);
            }
            Content::Separate { number, length } => {
                value.extend_from_slice(&SEPARATE.to_le_bytes());
                value.extend_from_slice(&number.to_le_bytes());
                value.extend_from_slice(&length.to_le_bytes());
            }
        }
    }
}

pub(super) fn encode_id(id: ObjectId, value: &mut Vec<u8>) {
    let bytes = id.as_bytes();
    value.push(u8::try_from(bytes.len()).unwrap_or(0));
    value.extend_from_slice(bytes);
}

pub(super) fn decode_id(bytes: &[u8]) -> Option<(ObjectId, &[u8])> {
    let (&[length], rest) = bytes.split_first_chunk()?;
    let (id, rest) = rest.split_at_checked(usize::from(length))?;
    Some((ObjectId::from_bytes(id).ok()?, rest))
}

/// The chunk that is being filled.
#[derive(Debug, Default)]
pub(super) struct Filling {
    /// The number of the chunk.
    pub(super) chunk: u32,
    pub(super) bytes: Vec<u8>,
    bases: Bases,
    /// The memory for the next chunk.
    spare: Vec<u8>,
}

/// The number and the bytes of a chunk to which nothing can be added any more.
type Full = (u32, Vec<u8>);

impl Filling {
    pub(super) fn new(chunk: u32) -> Self {
        Self { chunk, ..Self::default() }
    }

    /// Adds a value of at most this length, which `encode` adds to the bytes. Returns its place, and the
    /// chunk before if the value did not fit into it.
    pub(super) fn add(
        &mut self,
        length: usize,
        encode: impl FnOnce(&mut Vec<u8>),
    ) -> (Place, Option<Full>) {
        let full = self.make_room(length);
        let place = self.end();
        encode(&mut self.bytes);
        (place, full)
    }

    /// Adds a memo entry, as [`Filling::add`].
    pub(super) fn add_memo(&mut self, request: ObjectId, memo: &Memo<'_>) -> (Place, Option<Full>) {
        let full = self.make_room(memo.max_length(request));
        let base = memo.run.and_then(|run| self.bases.find(&self.bytes, run));
        let place = self.end();
        memo.encode(request, base, &mut self.bytes);
        if let (Some(run), None) = (memo.run, base) {
            self.bases.offer(place.offset, run, self.bytes.len());
        }
        (place, full)
    }

    /// Begins the next chunk if `length` more bytes do not fit. Returns the one before.
    fn make_room(&mut self, length: usize) -> Option<Full> {
        if self.bytes.is_empty() || self.bytes.len() + length <= MAX_CHUNK_BYTES {
            return None;
        }
        let mut next = std::mem::take(&mut self.spare);
        next.reserve(MAX_CHUNK_BYTES);
        let bytes = std::mem::replace(&mut self.bytes, next);
        self.bases = Bases::default();
        self.chunk += 1;
        Some((self.chunk - 1, bytes))
    }

    /// Takes the memory of a chunk that was written.
    pub(super) fn reuse(&mut self, mut bytes: Vec<u8>) {
        bytes.clear();
        self.spare = bytes;
    }

    /// Returns the place of the next value.
    fn end(&self) -> Place {
        let offset = u16::try_from(self.bytes.len()).unwrap_or(u16::MAX);
        Place { chunk: self.chunk, offset }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> ObjectId {
        Object::blob(text.to_owned()).id()
    }

    #[test]
    fn values_are_decoded_as_they_were_encoded() {
        for content in [Content::Inline(b"hello"), Content::Separate { number: 7, length: 1 << 40 }]
        {
            let value = ObjectValue { id: id("hello"), kind: ObjectKind::Blob, content };
            let mut bytes = Vec::new();
            value.encode(&mut bytes);
            assert_eq!(bytes.len(), value.length());
            bytes.extend_from_slice(b"more");
            assert_eq!(ObjectValue::decode(&bytes), Some(value));
        }
    }

    #[test]
    fn a_full_chunk_is_returned() {
        let mut filling = Filling::new(3);
        let mut add = || filling.add(30_000, |bytes| bytes.extend_from_slice(&[1; 30_000]));
        assert_eq!(add(), (Place { chunk: 3, offset: 0 }, None));
        assert_eq!(add(), (Place { chunk: 3, offset: 30_000 }, None));
        let (place, full) = add();
        assert_eq!(place, Place { chunk: 4, offset: 0 });
        assert_eq!(full.map(|(chunk, bytes)| (chunk, bytes.len())), Some((3, 60_000)));
    }
}
