//! Limits and budgets from the command line, and the option for each of them.

use std::time::Duration;

use bytesize::ByteSize;
use manifold_dispatcher::Budget;
use manifold_runtime_api::{Limit, Limits};

use crate::args::LimitArgs;

const GIB: u64 = 1 << 30;

impl LimitArgs {
    /// Returns the limits of one frame. The defaults are higher than those of the library, because
    /// a directory may contain large files that the user wants to fold. In base64, a response of 1
    /// GiB is a file of 768 MiB.
    pub(crate) fn limits(&self) -> Limits {
        let bytes =
            |size: Option<ByteSize>, default: u64| size.map_or(default, |size| size.as_u64());
        let mut limits = Limits::default();
        limits.memory_bytes = bytes(self.max_memory, 4 * GIB);
        limits.table_elements = self.max_table.unwrap_or(limits.table_elements);
        limits.compute_time = self.max_compute_time.unwrap_or(limits.compute_time);
        limits.fuel = self.max_fuel;
        limits.guest_request_bytes = bytes(self.max_request, GIB);
        limits.response_bytes = bytes(self.max_response, GIB);
        limits.module_bytes = bytes(self.max_module, GIB / 4);
        limits.log_bytes = bytes(self.max_log, limits.log_bytes);
        limits
    }

    /// Returns the budget of the whole call, without a deadline.
    pub(crate) fn budget(&self) -> Budget {
        let mut budget = Budget::new().deadline(Duration::MAX);
        budget.fuel = self.total_fuel;
        budget.memory_bytes = self.total_memory.map_or(budget.memory_bytes, |size| size.as_u64());
        budget.depth = self.total_depth.unwrap_or(budget.depth);
        budget.runs = self.total_runs.unwrap_or(budget.runs);
        budget.written_bytes =
            self.total_written.map_or(budget.written_bytes, |size| size.as_u64());
        budget
    }

    /// Returns the maximum size in bytes of a file of the input.
    pub(crate) fn largest_file(&self) -> u64 {
        self.max_file.map_or(16 * GIB, |size| size.as_u64())
    }
}

/// Returns the option that raises `limit`, if there is one.
pub(crate) fn option_for(limit: Limit) -> Option<&'static str> {
    Some(match limit {
        Limit::Memory { .. } => "--max-memory",
        Limit::Table { .. } => "--max-table",
        Limit::ComputeTime { .. } | Limit::TranspilerTime { .. } => "--max-compute-time",
        Limit::GuestRequest { .. } => "--max-request",
        Limit::Response { .. } => "--max-response",
        Limit::Module { .. } => "--max-module",
        Limit::Fuel { .. } => "--max-fuel",
        Limit::TotalFuel { .. } => "--total-fuel",
        Limit::TotalMemory { .. } => "--total-memory",
        Limit::Depth { .. } => "--total-depth",
        Limit::Runs { .. } => "--total-runs",
        Limit::WrittenBytes { .. } => "--total-written",
        Limit::Deadline { .. } => "--deadline",
        _ => return None,
    })
}
