//! Objects that a pack holds as deltas against others.
//!
//! Long chains are decoded from the base up, and every object on the way is kept for the next one: `gix-pack` 0.77 keeps
//! only the one that was asked for, so that reading all objects of a chain takes the square of its length.

use bytes::Bytes;
use gix_object::Kind;
use gix_pack::cache::DecodeEntry;
use gix_pack::data::Entry;
use gix_pack::data::decode::entry::ResolvedBase;
use gix_pack::data::entry::Header;
use quick_cache::Weighter;
use quick_cache::sync::Cache;

use super::Problem;
use super::packs::Pack;

/// How many bytes of decoded objects are kept.
const KEPT_BYTES: u64 = 96 << 20;

/// Objects in packs, decoded, by the number of their pack and the place of their data in it.
pub(super) struct Bases(Cache<(u32, u64), Decoded, ByLength>);

#[derive(Clone)]
struct Decoded {
    kind: Kind,
    content: Bytes,
    compressed_size: usize,
}

#[derive(Clone)]
struct ByLength;

impl Weighter<(u32, u64), Decoded> for ByLength {
    fn weight(&self, _: &(u32, u64), decoded: &Decoded) -> u64 {
        const OVERHEAD: usize = 100;
        (decoded.content.len() + OVERHEAD) as u64
    }
}

impl Default for Bases {
    fn default() -> Self {
        const AVERAGE_OBJECT: u64 = 4096;
        let expected = usize::try_from(KEPT_BYTES / AVERAGE_OBJECT).unwrap_or(usize::MAX);
        Self(Cache::with_weighter(expected, KEPT_BYTES, ByLength))
    }
}

/// Finds another copy of an object that its pack has lost.
pub(super) type Rescue<'a> = dyn Fn(&gix_hash::oid) -> Option<(Kind, Vec<u8>)> + 'a;

/// Reads the object at `offset` of `pack`.
pub(super) fn decode(
    pack: &Pack,
    offset: u64,
    bases: &Bases,
    rescue: &Rescue<'_>,
) -> Result<(Kind, Vec<u8>), Problem> {
    let data = pack.data()?;
    // From the object down to what is at hand, or to what is no delta.
    let mut offset = offset;
    let mut chain: Vec<(u64, Entry)> = Vec::new();
    loop {
        let entry = match data.entry(offset) {
            Ok(entry) => entry,
            Err(problem) if chain.is_empty() => return Err(problem.into()),
            // Told below, when it is decoded.
            Err(_) => break,
        };
        let is_at_hand = bases.0.peek(&(data.id, entry.data_offset)).is_some();
        let base = pack.base_of(&entry)?;
        chain.push((offset, entry));
        match base {
            // References to ids can go in a circle.
            Some(_) if chain.len() > data.num_objects() as usize => {
                return Err("deltas go in a circle".into());
            }
            Some(base) if !is_at_hand => offset = base,
            _ => break,
        }
    }
    let mut steps = Steps { bases, last: None };
    let (mut content, mut inflate) = (Vec::new(), gix_zlib::Inflate::default());
    let mut kind = None;
    let chain_length = chain.len();
    let mut rescued: Option<(gix_hash::ObjectId, Kind, Vec<u8>)> = None;
    for (place, (offset, mut entry)) in chain.into_iter().rev().enumerate() {
        let (key, size) = ((data.id, entry.data_offset), entry.header_size());
        let base_from_elsewhere = rescued.take();
        if let Some((base_id, ..)) = &base_from_elsewhere {
            entry.header = Header::RefDelta { base_id: *base_id };
        }
        let resolve = |id: &gix_hash::oid, out: &mut Vec<u8>| {
            if let Some((_, kind, content)) =
                base_from_elsewhere.as_ref().filter(|(base, ..)| **base == *id)
            {
                out.clear();
                out.extend_from_slice(content);
                return Ok(Some(ResolvedBase::OutOfPack { kind: *kind, end: content.len() }));
            }
            let base = pack
                .index()
                .lookup(id)
                .map(|base| data.entry(pack.index().pack_offset_at_index(base)));
            base.transpose().map(|base| base.map(ResolvedBase::InPack))
        };
        let decoded =
            match data.decode_entry(entry, &mut content, &mut inflate, &resolve, &mut steps) {
                Ok(decoded) => decoded.kind,
                // The last one has other copies elsewhere, which its reader tries.
                Err(problem) if place + 1 == chain_length => return Err(problem.into()),
                Err(problem) => {
                    let id = id_at(pack, offset).ok_or(problem)?;
                    let (kind, found) = rescue(&id)
                        .ok_or_else(|| format!("the base {id} of a delta cannot be read"))?;
                    rescued = Some((id, kind, found));
                    continue;
                }
            };
        kind = Some(decoded);
        if place + 1 < chain_length {
            steps.put(key.0, key.1, &content, decoded, size);
        }
    }
    Ok((kind.ok_or("the pack has no such object")?, content))
}

/// Tells the kind of the object at `offset` of `pack`: that of what its deltas begin with.
pub(super) fn kind(pack: &Pack, offset: u64, bases: &Bases) -> Result<Kind, Problem> {
    let data = pack.data()?;
    let mut offset = offset;
    for _ in 0..=data.num_objects() {
        let entry = data.entry(offset)?;
        if let Some(decoded) = bases.0.peek(&(data.id, entry.data_offset)) {
            return Ok(decoded.kind);
        }
        match (pack.base_of(&entry)?, entry.header.as_kind()) {
            (Some(base), _) => offset = base,
            (None, Some(kind)) => return Ok(kind),
            (None, None) => break,
        }
    }
    Err("deltas go in a circle".into())
}

/// The id of the object that begins at `offset`.
fn id_at(pack: &Pack, offset: u64) -> Option<gix_hash::ObjectId> {
    pack.index().iter().find(|entry| entry.pack_offset == offset).map(|entry| entry.oid)
}

/// What one reading leaves for the next ones, and for itself: the last step is always at hand.
struct Steps<'a> {
    bases: &'a Bases,
    last: Option<((u32, u64), Decoded)>,
}

impl DecodeEntry for Steps<'_> {
    fn put(&mut self, pack: u32, offset: u64, content: &[u8], kind: Kind, compressed_size: usize) {
        if self.last.as_ref().is_some_and(|(key, _)| *key == (pack, offset)) {
            return;
        }
        let decoded = Decoded { kind, content: Bytes::copy_from_slice(content), compressed_size };
        self.bases.0.insert((pack, offset), decoded.clone());
        self.last = Some(((pack, offset), decoded));
    }

    fn get(&mut self, pack: u32, offset: u64, out: &mut Vec<u8>) -> Option<(Kind, usize)> {
        let last = self
            .last
            .as_ref()
            .filter(|(key, _)| *key == (pack, offset))
            .map(|(_, decoded)| decoded.clone());
        let found = last.or_else(|| self.bases.0.get(&(pack, offset)))?;
        out.clear();
        out.extend_from_slice(&found.content);
        Some((found.kind, found.compressed_size))
    }
}
