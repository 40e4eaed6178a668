//! The vector instructions that a loop is compiled for, chosen at run time.
//!
//! A closure given to [`Level::run`] is compiled once per level, so plain loops over slices become
//! AVX-512, AVX2 or baseline code without intrinsics. The closure and what it calls must be
//! `#[inline(always)]`: a function that is not inlined is compiled for the baseline.
//!
//! Elementwise functions use no fused multiply-add, and reductions always use 16 lanes. So these loops
//! give the same bits at every level. Products do use fused multiply-adds.
//!
//! Operations hold their level as a field, so that tests run each at every level.

use std::ffi::OsStr;
use std::sync::OnceLock;

use candle_core::{Result, bail};

/// The environment variable that names the level of a process.
const VARIABLE: &str = "ADAVIT_SIMD";

/// Returns the name of the vector instructions that fused operations of this process use:
/// `portable`, `avx2` or `avx512`.
///
/// The operations ignore a wrong `ADAVIT_SIMD` and use the best level. A program that wants an error
/// instead calls this at its start.
///
/// # Errors
/// If `ADAVIT_SIMD` is set and names no level that this machine has.
pub fn simd_level() -> Result<&'static str> {
    if let Some(name) = std::env::var_os(VARIABLE) {
        Level::named(&name)?;
    }
    Ok(Level::current().name())
}

/// Instructions a loop may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    /// What every processor of the target has (on aarch64 that includes NEON).
    Portable,
    /// AVX2 and FMA.
    #[cfg(target_arch = "x86_64")]
    Avx2,
    /// AVX-512 F, BW, CD, DQ, VL.
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Level {
    /// Returns the level of this process: the one that `ADAVIT_SIMD` names if the machine has it,
    /// otherwise the best.
    pub(crate) fn current() -> Self {
        static LEVEL: OnceLock<Level> = OnceLock::new();
        *LEVEL.get_or_init(|| {
            let named = std::env::var_os(VARIABLE).and_then(|name| Self::named(&name).ok());
            let best = Self::available().last();
            named.or(best).unwrap_or(Level::Portable)
        })
    }

    /// Returns the level of that name, if this machine has it.
    fn named(name: &OsStr) -> Result<Self> {
        if let Some(level) = Self::available().find(|level| level.name() == name) {
            return Ok(level);
        }
        let names: Vec<&str> = Self::available().map(Self::name).collect();
        bail!(
            "{VARIABLE}: expected a level of this machine ({}), found {name:?}; \
             set one of these, or unset it for the best",
            names.join(", ")
        );
    }

    /// Returns the levels of this machine, the best one last.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn available() -> impl Iterator<Item = Self> {
        let avx2 = pulp::x86::V3::try_new().map(|_| Level::Avx2);
        let avx512 = pulp::x86::V4::try_new().map(|_| Level::Avx512);
        [Some(Level::Portable), avx2, avx512].into_iter().flatten()
    }

    /// Returns the levels of this machine, the best one last.
    #[cfg(not(target_arch = "x86_64"))]
    pub(crate) fn available() -> impl Iterator<Item = Self> {
        std::iter::once(Level::Portable)
    }

    /// Runs `f` compiled for this level, or for a lower one if the machine lacks it.
    #[inline(always)]
    pub(crate) fn run<R>(self, f: impl FnMut() -> R) -> R {
        self.dispatch(Closure(f))
    }

    fn name(self) -> &'static str {
        match self {
            Level::Portable => "portable",
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => "avx2",
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => "avx512",
        }
    }

    /// Runs `op` compiled for this level, or for a lower one if the machine lacks it.
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    pub(crate) fn dispatch<Op: pulp::WithSimd>(self, op: Op) -> Op::Output {
        use pulp::{Simd, x86};
        match self {
            Level::Avx512 if let Some(simd) = x86::V4::try_new() => Simd::vectorize(simd, op),
            Level::Avx512 | Level::Avx2 if let Some(simd) = x86::V3::try_new() => {
                Simd::vectorize(simd, op)
            }
            _ => Simd::vectorize(pulp::Scalar, op),
        }
    }

    /// Runs `op` compiled for this level.
    #[cfg(not(target_arch = "x86_64"))]
    #[inline(always)]
    pub(crate) fn dispatch<Op: pulp::WithSimd>(self, op: Op) -> Op::Output {
        pulp::Arch::new().dispatch(op)
    }
}

/// A closure as an operation. It is `FnMut`, since a call by `FnOnce` goes through a function that
/// cannot be marked `inline(always)`.
struct Closure<F>(F);

impl<R, F: FnMut() -> R> pulp::WithSimd for Closure<F> {
    type Output = R;

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(mut self, _: S) -> R {
        (self.0)()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_available_level_is_found_by_its_name() {
        for level in Level::available() {
            assert_eq!(Level::named(OsStr::new(level.name())).unwrap(), level);
        }
    }

    #[test]
    fn a_wrong_name_is_an_error_that_says_what_to_do() {
        for wrong in ["", "AVX2", "sse", "portable "] {
            let message = Level::named(OsStr::new(wrong)).unwrap_err().to_string();
            assert!(message.contains("expected a level of this machine (portable"));
            assert!(message.contains(&format!("found {wrong:?}; set one")));
        }
    }

    #[test]
    fn the_level_of_this_process_is_one_that_the_machine_has() {
        assert!(Level::available().any(|level| level == Level::current()));
    }
}
