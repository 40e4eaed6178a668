//! Resident memory of this process, as Linux reports it in `/proc/self`.

use std::fs;
use std::sync::atomic::{AtomicU64, Ordering};

/// The highest peak before the last reset.
static PEAK: AtomicU64 = AtomicU64::new(0);

/// The memory at one moment, from which the system's peak counter starts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    before: u64,
}

impl Memory {
    /// Starts to watch; `None` where the system does not report memory.
    pub(crate) fn watch() -> Option<Self> {
        PEAK.fetch_max(status("VmHWM").unwrap_or(0), Ordering::Relaxed);
        // Resets the peak; where that is not allowed the peak is that of the whole process.
        let _ = fs::write("/proc/self/clear_refs", "5");
        let before = status("VmRSS")?;
        Some(Self { before })
    }

    /// Returns the peak since then minus the memory of then, in bytes.
    pub(crate) fn grown(self) -> Option<u64> {
        Some(status("VmHWM")?.saturating_sub(self.before))
    }
}

/// Returns the highest resident memory of this process in bytes; `None` where the system does not
/// report it.
pub fn peak_rss_bytes() -> Option<u64> {
    Some(status("VmHWM")?.max(PEAK.load(Ordering::Relaxed)))
}

/// Returns a line of the status in bytes.
fn status(name: &str) -> Option<u64> {
    let text = fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    let kib: u64 = line.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(kib * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn the_peak_of_the_process_outlives_a_watch() {
        // More than all tests of this process have at once.
        const BYTES: u64 = 256 << 20;
        let touched = std::hint::black_box(vec![1u8; BYTES as usize]);
        drop(touched);
        let memory = Memory::watch().unwrap();
        assert!(memory.grown().is_some());
        assert!(peak_rss_bytes().unwrap() >= BYTES);
    }
}
