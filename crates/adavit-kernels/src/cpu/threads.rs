//! Work on rayon's current pool.

use rayon::prelude::*;

use crate::trace;

/// Returns the number of threads that operations use.
pub fn threads() -> usize {
    rayon::current_num_threads()
}

/// Runs `f` on a thread of rayon's current pool.
///
/// An operation that divides its work hands it to the pool. A caller outside of the pool then sleeps
/// until the work is done; a caller that is a thread of the pool does a part of the work itself. A
/// forward of a small model is about a hundred operations, and outside of the pool each one would
/// sleep and wake up.
pub fn in_pool<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    if rayon::current_thread_index().is_some() {
        return f();
    }
    let dispatch = tracing::dispatcher::get_default(Clone::clone);
    rayon::scope(|_| tracing::dispatcher::with_default(&dispatch, f))
}

/// Runs `f(index, item)` for every item, on the threads of rayon's current pool, one item per thread
/// at a time. If `f` divides its own work further, idle threads take a share of it.
///
/// # Errors
/// One of the errors of `f`. Items that have not started by then are skipped.
pub fn side_by_side<T: Send, E: Send>(
    items: &mut [T],
    f: impl Fn(usize, &mut T) -> Result<(), E> + Send + Sync,
) -> Result<(), E> {
    let items_at_once = items.len().min(threads());
    let dispatch = tracing::dispatcher::get_default(Clone::clone);
    let run = |(index, item): (usize, &mut T)| {
        tracing::dispatcher::with_default(&dispatch, || {
            let _span = trace::at_once(items_at_once);
            f(index, item)
        })
    };
    in_pool(|| {
        let items = items.par_iter_mut().enumerate();
        items.with_max_len(1).try_for_each(run)
    })
}
