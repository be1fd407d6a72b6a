//! What the host allows one frame.

use std::time::Duration;

use crate::error::Error;
use crate::reason::{Limit, Reason};

/// Bounds on one frame. A breach ends the frame with [`Reason::LimitBreached`]; it never changes an answer, for failures
/// are not memoized, and a caller that survives one is not memoized either. So limits are no part of a host image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Linear memory or heap, in bytes, all of a guest's memories together. Default 256 MiB.
    pub memory_bytes: u64,
    /// Elements in a guest's tables, all together. Default 100,000.
    pub table_elements: u64,
    /// Time spent computing, not waiting for nested runs. Default 60 s.
    pub compute_time: Duration,
    /// What the guest may compute, in units of the runtime's own; `None` does not measure. A runtime that cannot measure refuses
    /// to run with a bound. Measuring slows guests down, and the computing time bounds them anyway. Default: none.
    pub fuel: Option<u64>,
    /// One request of the guest through the ABI, in bytes. Default 64 MiB.
    pub guest_request_bytes: u64,
    /// One response to the guest, in bytes. Default 64 MiB.
    pub response_bytes: u64,
    /// A module's code, in bytes. Default 16 MiB.
    pub module_bytes: u64,
    /// Log text kept of one job, in bytes; what follows is dropped, and the log says so. Default 1 MiB.
    pub log_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        const MIB: u64 = 1 << 20;
        Self {
            memory_bytes: 256 * MIB,
            table_elements: 100_000,
            compute_time: Duration::from_secs(60),
            fuel: None,
            guest_request_bytes: 64 * MIB,
            response_bytes: 64 * MIB,
            module_bytes: 16 * MIB,
            log_bytes: MIB,
        }
    }
}

impl Limits {
    /// The tighter of both, limit by limit.
    #[must_use]
    pub fn within(self, outer: Self) -> Self {
        Self {
            memory_bytes: self.memory_bytes.min(outer.memory_bytes),
            table_elements: self.table_elements.min(outer.table_elements),
            compute_time: self.compute_time.min(outer.compute_time),
            fuel: self.fuel.into_iter().chain(outer.fuel).min(),
            guest_request_bytes: self.guest_request_bytes.min(outer.guest_request_bytes),
            response_bytes: self.response_bytes.min(outer.response_bytes),
            module_bytes: self.module_bytes.min(outer.module_bytes),
            log_bytes: self.log_bytes.min(outer.log_bytes),
        }
    }
}

impl From<Limit> for Error {
    fn from(limit: Limit) -> Self {
        Self::new(Reason::LimitBreached(limit))
    }
}
