//! [`Padded`]: a value in cache lines of its own.

/// A value in cache lines of its own, so that threads that change neighbouring values do not take the
/// lines from each other. Processors fetch lines of 64 bytes in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Padded<T>(pub(crate) T);
