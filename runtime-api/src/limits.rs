//! [`Limits`]: the bounds on one frame.

use std::time::Duration;

use crate::error::Error;
use crate::reason::{Limit, Reason};

/// Bounds on one frame. Exceeding one ends the frame with [`Reason::LimitBreached`].
///
/// A limit never changes a memoized outcome: failures are not memoized, and neither is the outcome
/// of a caller that caught one. So limits are not part of a host image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Linear memory or heap, in bytes. All memories of a guest count together. Default: 256 MiB.
    pub memory_bytes: u64,
    /// Number of table elements. All tables of a guest count together. Default: 100,000.
    pub table_elements: u64,
    /// Time spent computing. Waiting for nested runs does not count. Default: 60 s.
    pub compute_time: Duration,
    /// Fuel, in units of the runtime. `None` means that fuel is not measured. A runtime that cannot
    /// measure fuel returns an error if there is a bound. Measuring slows guests down, and
    /// `compute_time` bounds them in any case. Default: `None`.
    pub fuel: Option<u64>,
    /// Size of one request that the guest sends through the ABI, in bytes. Default: 64 MiB.
    pub guest_request_bytes: u64,
    /// Size of one response to the guest, in bytes. Default: 64 MiB.
    pub response_bytes: u64,
    /// Size of a module, in bytes. Default: 16 MiB.
    pub module_bytes: u64,
    /// Size of the log that is kept of one job, in bytes. The rest is dropped, and a last line in
    /// the log says so. Default: 1 MiB.
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
    /// Sets [`Limits::memory_bytes`](#structfield.memory_bytes).
    #[must_use]
    pub const fn memory_bytes(mut self, memory_bytes: u64) -> Self {
        self.memory_bytes = memory_bytes;
        self
    }

    /// Sets [`Limits::table_elements`](#structfield.table_elements).
    #[must_use]
    pub const fn table_elements(mut self, table_elements: u64) -> Self {
        self.table_elements = table_elements;
        self
    }

    /// Sets [`Limits::compute_time`](#structfield.compute_time).
    #[must_use]
    pub const fn compute_time(mut self, compute_time: Duration) -> Self {
        self.compute_time = compute_time;
        self
    }

    /// Sets [`Limits::fuel`](#structfield.fuel).
    #[must_use]
    pub const fn fuel(mut self, fuel: Option<u64>) -> Self {
        self.fuel = fuel;
        self
    }

    /// Sets [`Limits::guest_request_bytes`](#structfield.guest_request_bytes).
    #[must_use]
    pub const fn guest_request_bytes(mut self, guest_request_bytes: u64) -> Self {
        self.guest_request_bytes = guest_request_bytes;
        self
    }

    /// Sets [`Limits::response_bytes`](#structfield.response_bytes).
    #[must_use]
    pub const fn response_bytes(mut self, response_bytes: u64) -> Self {
        self.response_bytes = response_bytes;
        self
    }

    /// Sets [`Limits::module_bytes`](#structfield.module_bytes).
    #[must_use]
    pub const fn module_bytes(mut self, module_bytes: u64) -> Self {
        self.module_bytes = module_bytes;
        self
    }

    /// Sets [`Limits::log_bytes`](#structfield.log_bytes).
    #[must_use]
    pub const fn log_bytes(mut self, log_bytes: u64) -> Self {
        self.log_bytes = log_bytes;
        self
    }

    /// Returns the tighter one of each pair of limits.
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
