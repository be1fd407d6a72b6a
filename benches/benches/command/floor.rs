//! The same work without Manifold.

use std::fs;
use std::path::Path;
use std::time::Instant;

use gix_object::Kind;
use rayon::iter::{IntoParallelIterator, ParallelIterator};

use crate::Result;

/// Looks at every file and directory with one thread. Returns how long that takes, in seconds.
pub(crate) fn walk(directory: &Path) -> Result<f64> {
    fn count(directory: &Path) -> Result<u64> {
        let mut files = 0;
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            files += if path.symlink_metadata()?.is_dir() { count(&path)? } else { 1 };
        }
        Ok(files)
    }
    let start = Instant::now();
    std::hint::black_box(count(directory)?);
    Ok(start.elapsed().as_secs_f64())
}

/// Reads every file and computes its id on all cores. Returns how long that takes, in seconds.
pub(crate) fn hash(directory: &Path) -> Result<f64> {
    fn ids(directory: &Path) -> std::io::Result<u64> {
        let entries = fs::read_dir(directory)?.collect::<std::io::Result<Vec<_>>>()?;
        let ids = entries.into_par_iter().map(|entry| {
            let path = entry.path();
            if path.symlink_metadata()?.is_dir() {
                return ids(&path);
            }
            let content = fs::read(path)?;
            let id = gix_object::compute_hash(gix_hash::Kind::Sha1, Kind::Blob, &content);
            let id = id.map_err(std::io::Error::other)?;
            Ok(u64::from(id.as_slice()[0]))
        });
        ids.sum()
    }
    let start = Instant::now();
    std::hint::black_box(ids(directory)?);
    Ok(start.elapsed().as_secs_f64())
}
