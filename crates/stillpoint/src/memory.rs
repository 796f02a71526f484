//! What the allocator keeps of what was freed.

/// In bytes: blocks from this size on are the system's again once they are freed.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const LARGE: libc::c_int = 1 << 20;

/// Capture takes blocks of megabytes on one thread and frees them on another. glibc raises by itself from which
/// size on it gives blocks back, up to 32 MiB, and keeps smaller ones in each thread's heap, which then fills with
/// holes. Once it is told a size, it stays with it.
pub fn give_back_large_blocks() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: sets a number of the allocator's; there is no other thread yet.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE);
    }
}
