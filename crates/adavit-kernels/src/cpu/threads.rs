//! One thread count for everything: rayon's global pool, candle's products and its elementwise pool.

use candle_core::{Result as CandleResult, bail};
use rayon::prelude::*;

use crate::trace;

const SPIN_LIMIT: &str = "CANDLE_BARRIER_POOL_SPIN_LIMIT";

/// More threads than any machine has processors, and fewer than a system refuses.
pub const MOST_THREADS: usize = 1024;

/// Sets the number of threads of every pool, once, before any thread exists.
///
/// candle re-reads the processor list on every product unless `RAYON_NUM_THREADS` is set, and
/// counts physical cores only; so this is the first call in `main`. Results do not depend on the
/// number.
///
/// candle's elementwise threads spin before they sleep, in the way of whoever has work: unless
/// `CANDLE_BARRIER_POOL_SPIN_LIMIT` is set, they are told to sleep at once. Training a nano model
/// on 2 cores beside another busy process ran at 230 images/s with candle's limit and at 1,400
/// without spinning.
///
/// The system's allocator is told to keep what is freed, where it is glibc's: a step allocates and
/// frees the same buffers again and again, and fresh pages from the system cost more than the work
/// on them. A training step of `nano_patch4_28` at batch 128 on 2 cores ran at 517 images/s without
/// and at 667 with.
///
/// # Errors
/// If `n` is not between 1 and [`MOST_THREADS`], or rayon's global pool was already built.
pub fn set_threads(n: usize) -> CandleResult<()> {
    if n == 0 || n > MOST_THREADS {
        bail!("threads: expected between 1 and {MOST_THREADS}, found {n}");
    }
    let count = n.to_string();
    let mut settings = vec![
        ("RAYON_NUM_THREADS", count.as_str()),
        ("CANDLE_NUM_THREADS", &count),
    ];
    if std::env::var_os(SPIN_LIMIT).is_none() {
        settings.push((SPIN_LIMIT, "0"));
    }
    for (name, value) in settings {
        // SAFETY: the caller is `main` before it has started any thread, so nothing reads the
        // environment at the same time.
        unsafe { std::env::set_var(name, value) };
    }
    keep_freed_memory();
    let built = rayon::ThreadPoolBuilder::new()
        .num_threads(n)
        .build_global();
    if let Err(error) = built {
        bail!("threads: cannot start {n}: {error}");
    }
    Ok(())
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn keep_freed_memory() {
    /// The largest threshold that glibc takes.
    const MMAP_THRESHOLD: i32 = 32 << 20;
    // SAFETY: mallopt only changes numbers of the allocator. One that it refuses changes nothing.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MMAP_THRESHOLD);
        libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
        libc::mallopt(libc::M_TOP_PAD, 4 * MMAP_THRESHOLD);
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn keep_freed_memory() {}

/// The number of threads that operations use.
pub fn threads() -> usize {
    rayon::current_num_threads()
}

/// Runs `f` on a thread of rayon's current pool.
///
/// An operation that divides its work hands it to the pool and sleeps until it is done, unless its
/// caller is a thread of the pool: that takes a part itself. A forward of a small model is some
/// hundred operations, of which each would sleep and wake.
pub fn in_pool<R: Send>(f: impl FnOnce() -> R + Send) -> R {
    if rayon::current_thread_index().is_some() {
        return f();
    }
    let dispatch = tracing::dispatcher::get_default(Clone::clone);
    rayon::scope(|_| tracing::dispatcher::with_default(&dispatch, f))
}

/// Runs `f` on every item, each on one thread of rayon's current pool as far as there are; what it
/// divides further is taken over by threads that have nothing else to do.
///
/// # Errors
/// One of those that `f` gives; items that were not begun are left out then.
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
