//! Huge pages of memory, which do not suit a command that computes.

/// Makes the kernel give further memory in small pages. Frames use the allocator's memory here and there, so
/// that two fifths of that in huge pages stays unused, and clearing these takes as long as they save. A
/// command that only reads gains from huge pages.
pub(crate) fn disable() {
    // Without it, the command only takes more memory.
    #[cfg(target_os = "linux")]
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}
