//! Blobs as they travel: compressed with Zstandard if the server takes that.

use std::io::{self, Read as _};

/// Blobs that are shorter travel as they are.
const WORTH_IT: usize = 512;

/// Returns `content` compressed. `None` if that is hardly smaller.
pub(crate) fn compressed(content: &[u8]) -> Option<Vec<u8>> {
    if content.len() < WORTH_IT {
        return None;
    }
    let compressed = zstd::bulk::compress(content, zstd::DEFAULT_COMPRESSION_LEVEL).ok()?;
    (compressed.len() < content.len() / 8 * 7).then_some(compressed)
}

/// Returns the decompressed content, or one byte more than `length` bytes of it if it is longer.
///
/// # Errors
/// An error if `compressed` is damaged.
pub(crate) fn decompressed(compressed: &[u8], length: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    let decoder = zstd::stream::read::Decoder::with_buffer(compressed)?;
    decoder.take(length.saturating_add(1)).read_to_end(&mut content)?;
    Ok(content)
}

/// Returns how many bytes `length` bytes have at most when they are compressed.
pub(crate) fn bound(length: u64) -> u64 {
    length.saturating_add(length / 128).saturating_add(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_comes_back_and_longer_content_is_cut() {
        let content = b"some text that repeats itself; ".repeat(1000);
        let travels = compressed(&content).unwrap();
        assert!(travels.len() < content.len() / 10);
        let length = content.len() as u64;
        assert_eq!(decompressed(&travels, length).unwrap(), content);
        assert_eq!(decompressed(&travels, 100).unwrap().len(), 101);
        assert!(decompressed(&travels[..travels.len() / 2], length).is_err());
        assert!(decompressed(b"no frame", length).is_err());
    }

    #[test]
    fn what_does_not_become_smaller_travels_as_it_is() {
        let noise: Vec<u8> = std::iter::repeat_with(|| fastrand::u8(..)).take(10_000).collect();
        assert_eq!(compressed(&noise), None);
        assert_eq!(compressed(b"short"), None);
        let all = zstd::bulk::compress(&noise, 1).unwrap();
        assert!(all.len() as u64 <= bound(noise.len() as u64));
    }
}
