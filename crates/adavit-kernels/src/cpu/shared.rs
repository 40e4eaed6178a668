//! Outputs and scratch of parallel tasks.

use std::cell::RefCell;
use std::marker::PhantomData;

/// Floats of a cache line, to which scratch and packed matrices are aligned.
const LINE: usize = 16;

/// An output that tasks fill at the same time, each its own ranges.
pub(crate) struct Shared<'a> {
    start: *mut f32,
    len: usize,
    borrowed: PhantomData<&'a mut [f32]>,
}

// SAFETY: threads only go through `range`, whose caller keeps the ranges apart.
unsafe impl Sync for Shared<'_> {}
// SAFETY: as above.
unsafe impl Send for Shared<'_> {}

impl<'a> Shared<'a> {
    pub(crate) fn new(values: &'a mut [f32]) -> Self {
        Self {
            start: values.as_mut_ptr(),
            len: values.len(),
            borrowed: PhantomData,
        }
    }

    /// Returns the same output, counted from `place`.
    ///
    /// # Panics
    /// If that lies beyond its end.
    pub(crate) fn from(&self, place: usize) -> Self {
        assert!(place <= self.len, "output: start within bounds");
        Self {
            // SAFETY: within the allocation by the assertion.
            start: unsafe { self.start.add(place) },
            len: self.len - place,
            borrowed: PhantomData,
        }
    }

    /// Returns the `len` values at `place`.
    ///
    /// # Safety
    /// Nothing else holds or takes any of these values while the result lives.
    #[inline(always)]
    #[expect(
        clippy::mut_from_ref,
        reason = "tasks write disjoint ranges of one output"
    )]
    pub(crate) unsafe fn range(&self, place: usize, len: usize) -> &mut [f32] {
        assert!(
            place <= self.len && len <= self.len - place,
            "output: range within bounds"
        );
        // SAFETY: in bounds by the assertion, alive by the lifetime, unaliased by the contract.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(place), len) }
    }
}

thread_local! {
    static SCRATCH: RefCell<Aligned> = const { RefCell::new(Aligned::empty()) };
}

/// Gives `f` a slice of this thread's scratch that starts at a cache line.
///
/// # Panics
/// If `f` asks for scratch again.
pub(crate) fn with_scratch<R>(len: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    SCRATCH.with_borrow_mut(|scratch| {
        if scratch.len < len {
            *scratch = Aligned::zeros(len);
        }
        f(&mut scratch.as_mut_slice()[..len])
    })
}

/// Floats that start at a cache line.
#[derive(Debug, Clone)]
pub(crate) struct Aligned {
    values: Vec<f32>,
    len: usize,
}

impl Aligned {
    const fn empty() -> Self {
        Self {
            values: Vec::new(),
            len: 0,
        }
    }

    pub(crate) fn zeros(len: usize) -> Self {
        Self {
            values: vec![0.0; len + LINE],
            len,
        }
    }

    fn start(&self) -> usize {
        self.values.as_ptr().align_offset(4 * LINE).min(LINE)
    }

    pub(crate) fn as_slice(&self) -> &[f32] {
        let start = self.start().min(self.values.len());
        &self.values[start..][..self.len]
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [f32] {
        let start = self.start().min(self.values.len());
        &mut self.values[start..][..self.len]
    }
}
