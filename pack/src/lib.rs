#![doc = include_str!("../README.md")]
#![cfg_attr(not(test), warn(clippy::unwrap_used, clippy::expect_used, clippy::panic))]

use std::collections::HashMap;
use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::ZlibDecoder;
use flate2::write::ZlibEncoder;
use manifold_runtime_api::{Object, ObjectId, ObjectKind, ObjectRef};

const MAGIC: &[u8] = b"manifold pack 1\n";
const PLAIN_MAGIC: &[u8] = b"manifold pack 1 plain\n";
const ID_BYTES: usize = 20;

/// Memo entries with the objects of their outcomes.
#[derive(Debug, Default)]
pub struct Pack {
    /// Requests and their outcomes.
    pub entries: Vec<(ObjectId, ObjectRef)>,
    /// The objects of the outcomes, by their ids.
    pub objects: HashMap<ObjectId, Object>,
}

/// What an object or an entry of a pack takes in memory beside its content, in bytes, about.
pub const BESIDE_BYTES: u64 = 100;

/// Why a blob is no pack.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PackError {
    /// It does not begin as packs do.
    #[error("it does not begin with the line `manifold pack 1` or `manifold pack 1 plain`")]
    Foreign,
    /// It is damaged, or ends too early.
    #[error("it is damaged: {problem}")]
    Damaged {
        /// What is wrong.
        problem: String,
    },
    /// It is too large when it is decompressed.
    #[error("it is over the limit of {bound} bytes when it is decompressed")]
    TooLarge {
        /// The limit in bytes.
        bound: u64,
    },
}

fn damaged(problem: &str) -> PackError {
    PackError::Damaged { problem: problem.to_owned() }
}

const fn kind_number(kind: ObjectKind) -> u8 {
    match kind {
        ObjectKind::Blob => 0,
        ObjectKind::Tree => 1,
    }
}

fn kind_of(number: u8) -> Result<ObjectKind, PackError> {
    match number {
        0 => Ok(ObjectKind::Blob),
        1 => Ok(ObjectKind::Tree),
        other => Err(PackError::Damaged { problem: format!("{other} is no kind of object") }),
    }
}

impl Pack {
    /// Encodes the pack, compressed. The same pack always has the same encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut encoder = ZlibEncoder::new(MAGIC.to_vec(), Compression::fast());
        self.write(&mut encoder);
        encoder.finish().unwrap_or_default()
    }

    /// Encodes the pack for a place that compresses what it is given. The same pack always has the same
    /// encoding.
    pub fn encode_plain(&self) -> Vec<u8> {
        let mut encoded = PLAIN_MAGIC.to_vec();
        self.write(&mut encoded);
        encoded
    }

    fn write(&self, to: &mut impl Write) {
        let mut write = |bytes: &[u8]| {
            // Writing to a vector cannot fail.
            let _ = to.write_all(bytes);
        };
        write(&u32::try_from(self.entries.len()).unwrap_or(u32::MAX).to_le_bytes());
        for (request, outcome) in &self.entries {
            write(request.as_bytes());
            write(&[kind_number(outcome.kind)]);
            write(outcome.id.as_bytes());
        }
        let mut objects: Vec<_> = self.objects.iter().collect();
        objects.sort_unstable_by_key(|(id, _)| **id);
        for (_, object) in objects {
            write(&[kind_number(object.kind)]);
            write(&(object.content.len() as u64).to_le_bytes());
            write(&object.content);
        }
    }

    /// Decodes a pack that takes at most `bound` bytes when it is decompressed, with [`BESIDE_BYTES`] for
    /// each object and entry.
    ///
    /// # Errors
    /// [`PackError`] if `bytes` is no sound pack.
    pub fn decode(bytes: &[u8], bound: u64) -> Result<Self, PackError> {
        let mut decompressed = Vec::new();
        let mut rest = match bytes.strip_prefix(PLAIN_MAGIC) {
            Some(rest) => rest,
            None => {
                let rest = bytes.strip_prefix(MAGIC).ok_or(PackError::Foreign)?;
                let decoder = ZlibDecoder::new(rest);
                let read = decoder.take(bound.saturating_add(1)).read_to_end(&mut decompressed);
                read.map_err(|error| damaged(&error.to_string()))?;
                &decompressed
            }
        };
        if rest.len() as u64 > bound {
            return Err(PackError::TooLarge { bound });
        }
        let mut left = bound - rest.len() as u64;
        let mut count = || -> Result<(), PackError> {
            left = left.checked_sub(BESIDE_BYTES).ok_or(PackError::TooLarge { bound })?;
            Ok(())
        };
        let mut pack = Self::default();
        for _ in 0..u32::from_le_bytes(array(&mut rest)?) {
            count()?;
            let request = id(&mut rest)?;
            let [kind] = array(&mut rest)?;
            let outcome = ObjectRef { kind: kind_of(kind)?, id: id(&mut rest)? };
            pack.entries.push((request, outcome));
        }
        while !rest.is_empty() {
            count()?;
            let [kind] = array(&mut rest)?;
            let length = usize::try_from(u64::from_le_bytes(array(&mut rest)?));
            let length = length.map_err(|_| damaged("an object is too long"))?;
            let content = take(&mut rest, length)?.to_vec();
            let object = match kind_of(kind)? {
                ObjectKind::Blob => Object::blob(content),
                ObjectKind::Tree => Object::encoded_tree(content),
            };
            pack.objects.insert(object.id(), object);
        }
        Ok(pack)
    }
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], PackError> {
    let (taken, left) =
        rest.split_at_checked(length).ok_or_else(|| damaged("it ends too early"))?;
    *rest = left;
    Ok(taken)
}

fn array<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], PackError> {
    let taken = take(rest, N)?;
    taken.first_chunk().copied().ok_or_else(|| damaged("it ends too early"))
}

fn id(rest: &mut &[u8]) -> Result<ObjectId, PackError> {
    ObjectId::from_bytes(take(rest, ID_BYTES)?).map_err(|error| damaged(&error.to_string()))
}
