//! One thread count for everything: rayon's global pool, candle's products and its elementwise pool.

use candle_core::{Result, bail};

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
/// # Errors
/// If `n` is not between 1 and [`MOST_THREADS`], or rayon's global pool was already built.
pub fn set_threads(n: usize) -> Result<()> {
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
    let built = rayon::ThreadPoolBuilder::new()
        .num_threads(n)
        .build_global();
    if let Err(error) = built {
        bail!("threads: cannot start {n}: {error}");
    }
    Ok(())
}

/// The number of threads that operations use.
pub fn threads() -> usize {
    rayon::current_num_threads()
}
