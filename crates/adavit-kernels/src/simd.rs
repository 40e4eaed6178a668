//! The vector instructions that a loop is compiled for, chosen at run time.
//!
//! A closure given to [`run`] is compiled once per level, so plain loops over slices become AVX-512,
//! AVX2 or baseline code without intrinsics. The closure and what it calls have to be
//! `#[inline(always)]`: a real call would leave the level. Elementwise mathematics uses no fused multiply-add and
//! reductions always use 16 lanes, so these loops give the same bits at every level.

use std::sync::OnceLock;

use candle_core::{Result, bail};

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
    /// Returns the level of this process: `ADAVIT_SIMD` (portable, avx2 or avx512) where that
    /// names one that the machine has, else the best.
    pub(crate) fn current() -> Self {
        static LEVEL: OnceLock<Level> = OnceLock::new();
        *LEVEL.get_or_init(|| {
            let wanted = std::env::var("ADAVIT_SIMD").unwrap_or_default();
            let named = Self::available().find(|level| level.name() == wanted);
            let best = Self::available().last();
            named.or(best).unwrap_or(Level::Portable)
        })
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

    /// The name of the level, as `ADAVIT_SIMD` has it.
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

/// Returns the vector instructions that operations use in this process: `portable`, `avx2` or
/// `avx512`, the best that the machine has unless `ADAVIT_SIMD` names another.
///
/// # Errors
/// If `ADAVIT_SIMD` names none, or one that the machine lacks; operations then use the best.
pub fn simd_level() -> Result<&'static str> {
    let current = Level::current().name();
    match std::env::var("ADAVIT_SIMD") {
        Ok(wanted) if wanted != current => {
            let names: Vec<&str> = Level::available().map(Level::name).collect();
            bail!(
                "ADAVIT_SIMD: expected one that this machine has, {}, found {wanted:?}",
                names.join(", ")
            )
        }
        _ => Ok(current),
    }
}

/// A closure as an operation. `FnMut`, since a call by `FnOnce` goes through a function that nothing
/// can mark as `inline(always)`.
struct Closure<F>(F);

impl<R, F: FnMut() -> R> pulp::WithSimd for Closure<F> {
    type Output = R;

    #[inline(always)]
    fn with_simd<S: pulp::Simd>(mut self, _: S) -> R {
        (self.0)()
    }
}

/// Runs an operation compiled for the level of this process.
#[inline(always)]
pub(crate) fn dispatch<Op: pulp::WithSimd>(op: Op) -> Op::Output {
    Level::current().dispatch(op)
}

/// Runs a closure compiled for the level of this process.
#[inline(always)]
pub(crate) fn run<R>(f: impl FnMut() -> R) -> R {
    Level::current().run(f)
}
