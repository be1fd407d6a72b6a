//! How much memory this process takes.

use std::fs;

/// Bytes of this process's memory at present, and at most since [`forget_peak`]; zeros where the system does not tell.
pub fn resident() -> (u64, u64) {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_whitespace().next()?.parse::<u64>().ok()
    };
    (field("VmRSS:").unwrap_or(0) << 10, field("VmHWM:").unwrap_or(0) << 10)
}

/// Begins a new peak (proc(5), `clear_refs`).
pub fn forget_peak() {
    // Where the system does not take it, the peak is that of the whole process, which is more.
    let _ = fs::write("/proc/self/clear_refs", "5");
}
