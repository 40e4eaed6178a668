//! A few blocks of decoded rows, shared by all threads.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::error::Result;

/// The pictures of some rows; a row without one is empty.
pub(crate) type Block = Vec<Vec<u8>>;

/// The most blocks that are kept: finding one among them takes no time.
const KEPT: usize = 1024;
/// The most bytes that are kept, if there is more than one block: the buffer of a
/// [streamed epoch](crate::loader::streamed), and what workers read ahead.
const KEPT_BYTES: usize = 128 << 20;

/// Which block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BlockKey {
    pub(crate) shard: u32,
    pub(crate) group: u32,
    pub(crate) first: u32,
}

/// The blocks that were used last.
#[derive(Debug, Default)]
pub(crate) struct Blocks(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    /// The one that was used last is at the back.
    blocks: VecDeque<KeptBlock>,
    bytes: usize,
}

#[derive(Debug)]
struct KeptBlock {
    key: BlockKey,
    bytes: usize,
    block: Arc<Block>,
}

impl Blocks {
    /// Returns a block; reads it if it is not kept. Two threads may read the same block at once.
    pub(crate) fn get(
        &self,
        key: BlockKey,
        read: impl FnOnce() -> Result<Block>,
    ) -> Result<Arc<Block>> {
        if let Some(block) = self.lock().find(key) {
            return Ok(block);
        }
        let block = Arc::new(read()?);
        self.lock().keep(key, &block);
        Ok(block)
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        // Nothing panics while the lock is held; a list of blocks is whole in any case.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn find(&mut self, key: BlockKey) -> Option<Arc<Block>> {
        // Rows are often read in their order: from the back.
        let at = self.blocks.iter().rposition(|kept| kept.key == key)?;
        let kept = self.blocks.remove(at)?;
        let block = Arc::clone(&kept.block);
        self.blocks.push_back(kept);
        Some(block)
    }

    fn keep(&mut self, key: BlockKey, block: &Arc<Block>) {
        if self.find(key).is_some() {
            return;
        }
        let bytes = block.iter().map(Vec::len).sum();
        self.bytes += bytes;
        self.blocks.push_back(KeptBlock {
            key,
            bytes,
            block: Arc::clone(block),
        });
        while self.blocks.len() > KEPT || self.blocks.len() > 1 && self.bytes > KEPT_BYTES {
            let oldest = self.blocks.pop_front();
            self.bytes -= oldest.map_or(0, |kept| kept.bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_that_were_not_used_for_long_are_read_again() {
        let blocks = Blocks::default();
        let key = |first| BlockKey {
            shard: 0,
            group: 0,
            first,
        };
        let read = |first: u32| {
            let mut was_read = false;
            let block = blocks.get(key(first), || {
                was_read = true;
                Ok(vec![vec![first as u8]])
            });
            assert_eq!(block.unwrap()[0], [first as u8]);
            was_read
        };
        assert!(read(0));
        assert!(!read(0));
        for first in 1..=KEPT as u32 {
            assert!(read(first));
        }
        assert!(read(0));
    }
}
