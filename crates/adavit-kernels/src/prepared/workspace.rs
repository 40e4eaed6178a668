//! What prepared operations reuse from call to call.

use crate::cpu::packed::Task;

/// Memory that operations reuse, and the count of their multiply-adds.
#[derive(Debug, Default)]
pub struct Workspace {
    pub(super) tasks: Vec<Task>,
    macs: u64,
}

impl Workspace {
    /// Returns the multiply-adds since the last call and counts from 0 again.
    pub fn take_macs(&mut self) -> u64 {
        std::mem::take(&mut self.macs)
    }

    /// Adds multiply-adds that other operations did for the same model.
    pub fn count(&mut self, macs: u64) {
        self.macs += macs;
    }
}
