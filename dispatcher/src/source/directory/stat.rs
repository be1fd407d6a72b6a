//! [`Stat`]: what shows that a file or directory is unchanged.

use std::fs::Metadata;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What the file system says about a file or directory, apart from its length and mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Stat {
    modified: Stamp,
    changed: Stamp,
    inode: u64,
    device: u64,
}

/// A time in seconds and nanoseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
struct Stamp(i64, u32);

impl Stat {
    pub(super) const BYTES: usize = 40;

    /// Returns `None` where the platform does not tell when a file was changed.
    #[cfg(unix)]
    pub(super) fn of(metadata: &Metadata) -> Option<Self> {
        use std::os::unix::fs::MetadataExt;
        let stamp =
            |seconds, nanoseconds: i64| Stamp(seconds, u32::try_from(nanoseconds).unwrap_or(0));
        Some(Self {
            modified: stamp(metadata.mtime(), metadata.mtime_nsec()),
            changed: stamp(metadata.ctime(), metadata.ctime_nsec()),
            inode: metadata.ino(),
            device: metadata.dev(),
        })
    }

    #[cfg(not(unix))]
    pub(super) fn of(_: &Metadata) -> Option<Self> {
        None
    }

    /// Returns whether everything that happened to the file after `young` would show: its times are
    /// older. A file that is written twice within one tick of the file system's clock has the same
    /// times after both. See "racy git" in git's documentation.
    ///
    /// The start of 1970 as the time of the last change means that the file system keeps no such time.
    /// On Linux, the root of a FAT file system has it after each mount.
    pub(super) fn is_older_than(&self, young: &Young) -> bool {
        self.changed != Stamp::default() && self.modified.max(self.changed) < young.0
    }

    pub(super) fn encode(&self, bytes: &mut Vec<u8>) {
        for stamp in [self.modified, self.changed] {
            bytes.extend_from_slice(&stamp.0.to_le_bytes());
            bytes.extend_from_slice(&stamp.1.to_le_bytes());
        }
        bytes.extend_from_slice(&self.inode.to_le_bytes());
        bytes.extend_from_slice(&self.device.to_le_bytes());
    }

    pub(super) fn decode(bytes: &[u8; Self::BYTES]) -> Self {
        let (modified, rest) = Stamp::decode(bytes);
        let (changed, rest) = Stamp::decode(rest);
        let (inode, rest) = rest.split_first_chunk().unwrap_or((&[0; 8], &[]));
        let device = rest.first_chunk().unwrap_or(&[0; 8]);
        let (inode, device) = (u64::from_le_bytes(*inode), u64::from_le_bytes(*device));
        Self { modified, changed, inode, device }
    }
}

impl Stamp {
    fn decode(bytes: &[u8]) -> (Self, &[u8]) {
        let (seconds, rest) = bytes.split_first_chunk().unwrap_or((&[0; 8], &[]));
        let (nanoseconds, rest) = rest.split_first_chunk().unwrap_or((&[0; 4], &[]));
        (Self(i64::from_le_bytes(*seconds), u32::from_le_bytes(*nanoseconds)), rest)
    }
}

/// The time from which on a file is too young to be trusted by its times.
#[derive(Debug, Clone, Copy)]
pub(super) struct Young(Stamp);

impl Young {
    /// The coarsest clock of a file system (FAT's).
    pub(super) const TICK: Duration = Duration::from_secs(2);

    /// For a scan that begins now, of file systems whose clocks have this tick.
    pub(super) fn now(tick: Duration) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let young = since.saturating_sub(tick);
        let seconds = i64::try_from(young.as_secs()).unwrap_or(i64::MAX);
        Self(Stamp(seconds, young.subsec_nanos()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_trusted_by_times_that_are_kept_and_old() {
        let young = Young(Stamp(1000, 0));
        let stat = |modified, changed| Stat {
            modified: Stamp(modified, 0),
            changed: Stamp(changed, 0),
            ..Stat::default()
        };
        assert!(stat(0, 999).is_older_than(&young), "archives have such modification times");
        for (modified, changed) in [(0, 0), (999, 0), (999, 1000), (1000, 999)] {
            assert!(!stat(modified, changed).is_older_than(&young), "{modified} {changed}");
        }
    }
}
