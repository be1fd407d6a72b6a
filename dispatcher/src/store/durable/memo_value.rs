//! The values of memo entries in a chunk.
//!
//! A value has the id of the request, a byte for the kind of the outcome (0 if there is none) and for
//! what follows ([`HAS_RUN`], [`HAS_COMMON`]), the id of the outcome if there is one, and a CRC-32 of all
//! that is kept for the request. If there is the record of a run, there follow its common part, or the
//! offset of another value in the chunk that has the same (2 bytes), and its own part, each part after
//! its length (4 bytes).

use bytes::Bytes;
use manifold_runtime_api::{ObjectId, ObjectRef};

use super::chunks::{decode_id, encode_id};
use super::format::{check, kind_code, kind_of};
use crate::store::RunRecord;

/// There is the record of a run.
const HAS_RUN: u8 = 0x80;
/// The common part of the record is in this value.
const HAS_COMMON: u8 = 0x40;
/// How many values of a chunk others may refer to.
const MAX_BASES: usize = 8;

/// What the memo has for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Memo<'a> {
    pub(super) outcome: Option<ObjectRef>,
    pub(super) run: Option<RunParts<'a>>,
}

/// The record of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RunParts<'a> {
    pub(super) common: &'a [u8],
    pub(super) own: &'a [u8],
}

impl<'a> RunParts<'a> {
    pub(super) fn of(record: &'a RunRecord) -> Self {
        let (common, own) = record.bytes.split_at(record.common.min(record.bytes.len()));
        Self { common, own }
    }

    pub(super) fn to_record(self) -> RunRecord {
        RunRecord {
            bytes: Bytes::from([self.common, self.own].concat()),
            common: self.common.len(),
        }
    }
}

/// A memo entry in a chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MemoValue<'a> {
    pub(super) request: ObjectId,
    /// `None` if the checksum does not match.
    pub(super) memo: Option<Memo<'a>>,
    /// The length of the encoded value in bytes.
    pub(super) bytes: usize,
}

/// Where the common part of a record is.
enum Common<'a> {
    Here(&'a [u8]),
    /// In the value at this offset.
    At(u16),
}

/// The parts of an encoded value.
struct Fields<'a> {
    request: ObjectId,
    kind: u8,
    outcome: Option<ObjectRef>,
    check: [u8; 4],
    run: Option<(Common<'a>, &'a [u8])>,
    bytes: usize,
}

impl<'a> Fields<'a> {
    fn decode(value: &'a [u8]) -> Option<Self> {
        let (request, rest) = decode_id(value)?;
        let (&[kind], rest) = rest.split_first_chunk()?;
        let (outcome, rest) = match kind & !(HAS_RUN | HAS_COMMON) {
            0 => (None, rest),
            code => {
                let (id, rest) = decode_id(rest)?;
                (Some(ObjectRef { kind: kind_of(code)?, id }), rest)
            }
        };
        let (check, mut rest) = rest.split_first_chunk()?;
        let mut run = None;
        if kind & HAS_RUN != 0 {
            let common = if kind & HAS_COMMON != 0 {
                let common;
                (common, rest) = decode_part(rest)?;
                Common::Here(common)
            } else {
                let base;
                (base, rest) = rest.split_first_chunk()?;
                Common::At(u16::from_le_bytes(*base))
            };
            let own;
            (own, rest) = decode_part(rest)?;
            run = Some((common, own));
        }
        let bytes = value.len() - rest.len();
        Some(Self { request, kind, outcome, check: *check, run, bytes })
    }
}

fn encode_part(part: &[u8], value: &mut Vec<u8>) {
    let length = u32::try_from(part.len()).unwrap_or(u32::MAX);
    value.extend_from_slice(&length.to_le_bytes());
    value.extend_from_slice(part);
}

fn decode_part(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)
}

impl<'a> MemoValue<'a> {
    /// Decodes the entry at `offset` in a chunk. `None` if it is malformed.
    pub(super) fn decode(chunk: &'a [u8], offset: u16) -> Option<Self> {
        let at = |offset: u16| Fields::decode(chunk.get(usize::from(offset)..)?);
        let Fields { request, kind, outcome, check: found, run, bytes } = at(offset)?;
        let run = match run {
            None => None,
            Some((Common::Here(common), own)) => Some(RunParts { common, own }),
            Some((Common::At(base), own)) => match at(base)?.run? {
                (Common::Here(common), _) => Some(RunParts { common, own }),
                (Common::At(_), _) => return None,
            },
        };
        let memo = Memo { outcome, run };
        let is_sound = memo.check(request, kind).to_le_bytes() == found;
        Some(Self { request, memo: is_sound.then_some(memo), bytes })
    }
}

impl Memo<'_> {
    fn check(&self, request: ObjectId, kind: u8) -> u32 {
        let outcome = self.outcome.as_ref().map_or(&[][..], |outcome| outcome.id.as_bytes());
        let RunParts { common, own } = self.run.unwrap_or(RunParts { common: &[], own: &[] });
        check(request, [&[kind], outcome, common, own])
    }

    /// Returns how long the encoded entry is at most, in bytes.
    pub(super) fn max_length(&self, request: ObjectId) -> usize {
        /// The kind, the lengths of two ids and of the parts of the record, and the checksum.
        const BESIDE: usize = 1 + 2 + 4 + 4 + 4;
        let record = self.run.map_or(0, |run| run.common.len() + run.own.len());
        BESIDE + 2 * request.as_bytes().len() + record
    }

    /// Adds an encoded entry to `value`. The value at `base`, if that is stated, has the common part of
    /// its record.
    pub(super) fn encode(&self, request: ObjectId, base: Option<u16>, value: &mut Vec<u8>) {
        encode_id(request, value);
        let mut kind = self.outcome.map_or(0, |outcome| kind_code(outcome.kind));
        if self.run.is_some() {
            kind |= if base.is_some() { HAS_RUN } else { HAS_RUN | HAS_COMMON };
        }
        value.push(kind);
        if let Some(outcome) = self.outcome {
            encode_id(outcome.id, value);
        }
        value.extend_from_slice(&self.check(request, kind).to_le_bytes());
        if let Some(RunParts { common, own }) = self.run {
            match base {
                Some(base) => value.extend_from_slice(&base.to_le_bytes()),
                None => encode_part(common, value),
            }
            encode_part(own, value);
        }
    }
}

/// The values of the chunk that is being filled to which others may refer.
#[derive(Debug, Default)]
pub(super) struct Bases(Vec<Base>);

#[derive(Debug)]
struct Base {
    offset: u16,
    /// Where the common part of its record begins in the chunk, and its length.
    start: usize,
    length: usize,
}

impl Bases {
    /// Finds the value that has the common part of `run`. `chunk` is the one that is being filled.
    pub(super) fn find(&self, chunk: &[u8], run: RunParts<'_>) -> Option<u16> {
        let has_common = |base: &&Base| {
            base.length == run.common.len()
                && chunk.get(base.start..).is_some_and(|rest| rest.starts_with(run.common))
        };
        self.0.iter().find(has_common).map(|base| base.offset)
    }

    /// Notes a value with the whole of `run`, which was added at `offset` and ends at `end`.
    pub(super) fn offer(&mut self, offset: u16, run: RunParts<'_>, end: usize) {
        if self.0.len() < MAX_BASES {
            let length = run.common.len();
            self.0.push(Base { offset, start: end - run.own.len() - 4 - length, length });
        }
    }
}

#[cfg(test)]
mod tests {
    use manifold_runtime_api::Object;

    use super::super::chunks::Filling;
    use super::*;

    fn id(text: &str) -> ObjectId {
        Object::blob(text.to_owned()).id()
    }

    #[test]
    fn values_are_decoded_as_they_were_encoded() {
        let outcomes = [None, Some(ObjectRef::tree(id("tree"))), Some(ObjectRef::blob(id("blob")))];
        let texts: Vec<_> = (0..12).map(|number| number.to_string().repeat(60)).collect();
        let mut runs = vec![None, Some(RunParts { common: b"", own: b"" })];
        for text in &texts {
            let common = text.as_bytes();
            runs.extend(
                [&b"one"[..], b"two", b"three", b""].map(|own| Some(RunParts { common, own })),
            );
        }
        let mut filling = Filling::new(0);
        let mut expected = Vec::new();
        for (number, run) in runs.iter().cycle().take(400).enumerate() {
            let request = id(&number.to_string());
            let memo = Memo { outcome: outcomes[number % 3], run: *run };
            let (place, full) = filling.add_memo(request, &memo);
            assert_eq!(full, None);
            expected.push((place, request, memo));
        }
        let mut whole = Vec::new();
        for (_, request, memo) in &expected {
            let before = whole.len();
            memo.encode(*request, None, &mut whole);
            assert!(whole.len() - before <= memo.max_length(*request));
        }
        let whole = whole.len();
        assert!(filling.bytes.len() * 4 < whole * 3, "{} of {whole}", filling.bytes.len());
        let mut end = 0;
        for (place, request, memo) in expected {
            let value = MemoValue::decode(&filling.bytes, place.offset).unwrap();
            assert_eq!((value.request, value.memo), (request, Some(memo)));
            assert_eq!(usize::from(place.offset), end);
            end += value.bytes;
        }
    }

    #[test]
    fn a_changed_byte_is_noticed_also_in_the_value_that_is_referred_to() {
        let mut filling = Filling::new(0);
        let memo = Memo { outcome: None, run: Some(RunParts { common: &[7; 100], own: b"own" }) };
        filling.add_memo(id("one"), &memo);
        let (place, _) = filling.add_memo(id("two"), &memo);
        for at in 0..filling.bytes.len() {
            let mut changed = filling.bytes.clone();
            changed[at] ^= 1;
            for (offset, request) in [(0, id("one")), (place.offset, id("two"))] {
                let value = MemoValue::decode(&changed, offset);
                let found = value.filter(|value| value.request == request && value.memo.is_some());
                assert!(found.is_none_or(|value| value.memo == Some(memo)), "byte {at}");
            }
        }
    }

    #[test]
    fn a_value_in_the_next_chunk_refers_to_none_of_this_one() {
        let mut filling = Filling::new(0);
        let memo =
            Memo { outcome: None, run: Some(RunParts { common: &[7; 100], own: &[8; 40_000] }) };
        for (number, request) in ["one", "two", "three"].into_iter().enumerate() {
            let (place, full) = filling.add_memo(id(request), &memo);
            let value = MemoValue::decode(&filling.bytes, place.offset).unwrap();
            assert_eq!((place.chunk, value.memo), (number as u32, Some(memo)));
            if let Some((_, full)) = full {
                assert_eq!(MemoValue::decode(&full, 0).unwrap().memo, Some(memo));
            }
        }
    }
}
