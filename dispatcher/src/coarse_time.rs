//! A clock that takes a fraction of the time that `Instant` takes.

/// Returns the time since some point in the past, in milliseconds, give or take ten.
#[cfg(target_os = "linux")]
pub(crate) fn coarse_ms() -> u64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
    let milliseconds = time.tv_sec.saturating_mul(1000).saturating_add(time.tv_nsec / 1_000_000);
    u64::try_from(milliseconds).unwrap_or(0)
}

#[cfg(not(target_os = "linux"))]
pub(crate) fn coarse_ms() -> u64 {
    static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
    let elapsed = START.get_or_init(std::time::Instant::now).elapsed();
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}
