//! One number of threads for every pool: rayon's global pool, candle's products, and candle's pool for
//! elementwise operations.
//!
//! candle takes its numbers from environment variables only, and reads `RAYON_NUM_THREADS` again on
//! every product. So they have to be set, which is sound only while no other thread reads the
//! environment. [`environment_is_ours`] checks that.

use std::env;

use candle_core::{Result, bail};

/// Threads of rayon's default pools and of candle's products.
const RAYON_THREADS: &str = "RAYON_NUM_THREADS";

/// Threads of candle's pool for elementwise operations.
const CANDLE_THREADS: &str = "CANDLE_NUM_THREADS";

/// How often a thread of candle's elementwise pool checks for work before it sleeps.
const CANDLE_SPIN_LIMIT: &str = "CANDLE_BARRIER_POOL_SPIN_LIMIT";

/// The largest number of threads to ask for: more than any machine has processors, and fewer than a
/// system refuses.
pub const MOST_THREADS: usize = 1024;

/// Sets the number of threads of every pool to `n`, once per process. Results do not depend on `n`.
///
/// Call it first in `main`, before any other thread starts. It does three things:
///
/// - It builds rayon's global pool, which the operations of this crate use.
/// - It sets `RAYON_NUM_THREADS` and `CANDLE_NUM_THREADS`, from which candle takes its numbers.
///   Without them candle reads the list of processors on every product, and counts physical cores.
///   Unless `CANDLE_BARRIER_POOL_SPIN_LIMIT` is set, it is set to 0: threads of candle's elementwise
///   pool then sleep at once instead of spinning. On 2 cores beside another busy process, a nano model
///   trained at 1,400 images/s without spinning, and at 230 with candle's default.
/// - On Linux with glibc, it makes the allocator keep freed memory, since each training step allocates
///   the same buffers again. A training step of `nano_patch4_28` at batch 128 on 2 cores ran at 667
///   images/s with it and at 517 without.
///
/// The environment is changed only where that is sound: on Linux while the calling thread is the only
/// one of the process, and on Windows. On other systems (and on Linux without `/proc`) it stays as it
/// is, and only the variables that the process was started with reach candle.
///
/// # Errors
/// If `n` is not between 1 and [`MOST_THREADS`]; if another thread runs already and the variables do
/// not have the wanted values; or if rayon's global pool exists already.
pub fn set_threads(n: usize) -> Result<()> {
    if n == 0 || n > MOST_THREADS {
        bail!("threads: expected between 1 and {MOST_THREADS}, found {n}");
    }
    let count = n.to_string();
    set_variable(RAYON_THREADS, &count)?;
    set_variable(CANDLE_THREADS, &count)?;
    if env::var_os(CANDLE_SPIN_LIMIT).is_none() {
        set_variable(CANDLE_SPIN_LIMIT, "0")?;
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

/// Sets a variable of the environment where it differs and that is sound.
///
/// # Errors
/// If another thread runs.
fn set_variable(name: &str, value: &str) -> Result<()> {
    if env::var_os(name).is_some_and(|found| found == value) {
        return Ok(());
    }
    match environment_is_ours() {
        Some(true) => {
            // SAFETY: `environment_is_ours` has found that no other thread can read or write the
            // environment: this is the only thread, which starts none until the call returns, or the
            // system guards the environment by a lock.
            unsafe { env::set_var(name, value) };
            Ok(())
        }
        Some(false) => bail!(
            "threads: expected no other thread while {name} is not {value}, found one; set the \
             number of threads first in `main`, or start the program with {name}={value}"
        ),
        None => Ok(()),
    }
}

/// Returns whether this thread may change the environment, or `None` if that is unknown.
#[cfg(target_os = "linux")]
fn environment_is_ours() -> Option<bool> {
    // One entry per thread of the process.
    let mut threads = std::fs::read_dir("/proc/self/task").ok()?;
    threads.next()?.ok()?;
    Some(threads.next().is_none())
}

/// Returns whether this thread may change the environment: yes, since Windows guards it by a lock.
#[cfg(windows)]
#[expect(clippy::unnecessary_wraps, reason = "other systems may not know")]
fn environment_is_ours() -> Option<bool> {
    Some(true)
}

/// Returns whether this thread may change the environment: unknown on this system.
#[cfg(not(any(target_os = "linux", windows)))]
fn environment_is_ours() -> Option<bool> {
    None
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
fn keep_freed_memory() {
    /// The largest threshold that glibc takes.
    const MMAP_THRESHOLD: i32 = 32 << 20;
    // SAFETY: mallopt only changes numbers of the allocator. A number that it refuses changes nothing.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, MMAP_THRESHOLD);
        libc::mallopt(libc::M_TRIM_THRESHOLD, i32::MAX);
        libc::mallopt(libc::M_TOP_PAD, 4 * MMAP_THRESHOLD);
    }
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
fn keep_freed_memory() {}
