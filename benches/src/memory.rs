//! The memory of this process.

use std::fs;

/// Returns the resident memory of this process in bytes, now and at its peak since [`forget_peak`].
/// Both are 0 where the system does not report them.
pub fn resident() -> (u64, u64) {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    (field("VmRSS:").unwrap_or(0) << 10, field("VmHWM:").unwrap_or(0) << 10)
}

/// Resets the peak of [`resident`] to the current memory (proc(5), `clear_refs`).
pub fn forget_peak() {
    // Where the system does not support this, the peak remains that since the start of the process,
    // which is higher.
    let _ = fs::write("/proc/self/clear_refs", "5");
}
