//! File names and link targets as bytes, and back.

use std::ffi::{OsStr, OsString};

/// Returns the name as it is in a tree.
pub(super) fn bytes(name: &OsStr) -> &[u8] {
    name.as_encoded_bytes()
}

/// Returns the name that [`bytes`] returned these bytes for.
#[cfg(unix)]
pub(super) fn from_bytes(bytes: &[u8]) -> OsString {
    use std::os::unix::ffi::OsStrExt;
    OsStr::from_bytes(bytes).to_owned()
}

#[cfg(not(unix))]
pub(super) fn from_bytes(bytes: &[u8]) -> OsString {
    String::from_utf8_lossy(bytes).into_owned().into()
}
