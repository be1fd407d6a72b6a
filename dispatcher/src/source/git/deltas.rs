//! Decoding of delta chains in packs.
//!
//! A chain is decoded from the base up, and every object on the way is cached. `gix-pack` 0.77
//! caches only the object that was asked for, so that reading all objects of a chain takes time
//! proportional to the square of its length.

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

/// How many bytes of decoded objects are cached.
const CACHE_BYTES: u64 = 96 << 20;

/// A cache of decoded objects by the number of their pack and the offset of their data in it.
pub(super) struct BaseCache(Cache<(u32, u64), Decoded, ByLength>);

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

impl Default for BaseCache {
    fn default() -> Self {
        const AVERAGE_OBJECT: u64 = 4096;
        let expected = usize::try_from(CACHE_BYTES / AVERAGE_OBJECT).unwrap_or(usize::MAX);
        Self(Cache::with_weighter(expected, CACHE_BYTES, ByLength))
    }
}

/// Finds another copy of an object that cannot be read from its pack.
pub(super) type Rescue<'a> = dyn Fn(&gix_hash::oid) -> Option<(Kind, Vec<u8>)> + 'a;

/// Reads the object at `offset` of `pack`. A delta base that cannot be read from the pack is
/// supplied by `rescue`.
pub(super) fn decode(
    pack: &Pack,
    offset: u64,
    bases: &BaseCache,
    rescue: &Rescue<'_>,
) -> Result<(Kind, Vec<u8>), Problem> {
    let data = pack.data()?;
    // Collect the chain from the object down to one that is cached or not a delta.
    let mut offset = offset;
    let mut chain: Vec<(u64, Entry)> = Vec::new();
    loop {
        let entry = match data.entry(offset) {
            Ok(entry) => entry,
            Err(problem) if chain.is_empty() => return Err(problem.into()),
            // Handled below, when the entry that needs this base is decoded.
            Err(_) => break,
        };
        let is_cached = bases.0.peek(&(data.id, entry.data_offset)).is_some();
        let base = pack.base_of(&entry)?;
        chain.push((offset, entry));
        match base {
            // Bases that are named by id can form a cycle.
            Some(_) if chain.len() > data.num_objects() as usize => {
                return Err("the delta chain is a cycle".into());
            }
            Some(base) if !is_cached => offset = base,
            _ => break,
        }
    }
    let mut steps = StepCache { bases, last: None };
    let (mut content, mut inflate) = (Vec::new(), gix_zlib::Inflate::default());
    let mut kind = None;
    let chain_length = chain.len();
    let mut rescued: Option<(gix_hash::ObjectId, Kind, Vec<u8>)> = None;
    for (place, (offset, mut entry)) in chain.into_iter().rev().enumerate() {
        let (key, size) = ((data.id, entry.data_offset), entry.header_size());
        let replacement = rescued.take();
        if let Some((base_id, ..)) = &replacement {
            entry.header = Header::RefDelta { base_id: *base_id };
        }
        let resolve = |id: &gix_hash::oid, out: &mut Vec<u8>| {
            if let Some((_, kind, content)) =
                replacement.as_ref().filter(|(base, ..)| **base == *id)
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
                // The caller tries other copies of the object itself.
                Err(problem) if place + 1 == chain_length => return Err(problem.into()),
                Err(problem) => {
                    let id = id_at(pack, offset).ok_or(problem)?;
                    let (kind, found) =
                        rescue(&id).ok_or_else(|| format!("cannot read the delta base {id}"))?;
                    rescued = Some((id, kind, found));
                    continue;
                }
            };
        kind = Some(decoded);
        if place + 1 < chain_length {
            steps.put(key.0, key.1, &content, decoded, size);
        }
    }
    Ok((kind.ok_or("the pack does not contain the object")?, content))
}

/// Returns the kind of the object at `offset` of `pack`, which is the kind of the base of its
/// chain.
pub(super) fn kind(pack: &Pack, offset: u64, bases: &BaseCache) -> Result<Kind, Problem> {
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
    Err("the delta chain is a cycle".into())
}

/// Returns the length of the object at `offset` of `pack`. That of a delta's result stands at the
/// beginning of the delta, after the length of its base (gitformat-pack(5), "Deltified
/// representation").
pub(super) fn size(pack: &Pack, offset: u64) -> Result<u64, Problem> {
    let data = pack.data()?;
    let entry = data.entry(offset)?;
    if pack.base_of(&entry)?.is_none() {
        return Ok(entry.decompressed_size);
    }
    let mut delta = Vec::new();
    delta.try_reserve_exact(usize::try_from(entry.decompressed_size)?)?;
    delta.resize(usize::try_from(entry.decompressed_size)?, 0);
    data.decompress_entry(&entry, &mut gix_zlib::Inflate::default(), &mut delta)?;
    let mut bytes = delta.iter().copied();
    number(&mut bytes)
        .and_then(|_base| number(&mut bytes))
        .ok_or_else(|| "the delta is damaged".into())
}

/// Reads a number of seven bits a byte, the least significant ones first.
fn number(bytes: &mut impl Iterator<Item = u8>) -> Option<u64> {
    let mut number = 0u64;
    for shift in (0..64).step_by(7) {
        let byte = bytes.next()?;
        number |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(number);
        }
    }
    None
}

/// Returns the id of the object that begins at `offset`.
fn id_at(pack: &Pack, offset: u64) -> Option<gix_hash::ObjectId> {
    pack.index().iter().find(|entry| entry.pack_offset == offset).map(|entry| entry.oid)
}

/// The cache for decoding one chain. Adds objects to the shared cache, and keeps the last one
/// itself, so that the next step finds it even if the shared cache has evicted it.
struct StepCache<'a> {
    bases: &'a BaseCache,
    last: Option<((u32, u64), Decoded)>,
}

impl DecodeEntry for StepCache<'_> {
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
