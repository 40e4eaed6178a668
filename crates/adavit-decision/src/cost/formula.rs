//! The `exact` multiply-adds of one block: one formula for every kind of number.
//!
//! `u64` counts one image, `f64` the mean over random gates, and a [`Tensor`] each image of a
//! batch, with the gradient of its gates.
//!
//! ```text
//! linear maps of attention   t w C on the channels of kept heads, t C C on all channels
//!   partial                    Q and K on those of kept heads, V and projection on all
//!   full, head_v2, no gates    all four on those of kept heads
//! products of attention      2 t² w
//! MLP   full                 n (w + e C) R
//!       head_v2              2 n w R
//!       partial, no gates    2 n C R
//! ```
//!
//! with t kept tokens (class token included), w = h D channels of the h kept heads, R = fc1's
//! width, n = t if tokens gate the MLP and N if not, e = 1 if any head is kept and 0 if not.

use std::convert::Infallible;
use std::ops::Add;

use candle_core::Tensor;

use crate::config::HeadDeactivation;

/// What multiply-adds are counted in.
pub(crate) trait Number: Sized {
    /// Why an operation fails.
    type Error;

    fn plus(&self, other: &Self) -> Result<Self, Self::Error>;
    fn times(&self, other: &Self) -> Result<Self, Self::Error>;
    fn scaled(&self, factor: usize) -> Result<Self, Self::Error>;
}

impl Number for u64 {
    type Error = Infallible;

    fn plus(&self, other: &Self) -> Result<Self, Infallible> {
        Ok(self + other)
    }

    fn times(&self, other: &Self) -> Result<Self, Infallible> {
        Ok(self * other)
    }

    fn scaled(&self, factor: usize) -> Result<Self, Infallible> {
        Ok(self * factor as Self)
    }
}

impl Number for f64 {
    type Error = Infallible;

    fn plus(&self, other: &Self) -> Result<Self, Infallible> {
        Ok(self + other)
    }

    fn times(&self, other: &Self) -> Result<Self, Infallible> {
        Ok(self * other)
    }

    fn scaled(&self, factor: usize) -> Result<Self, Infallible> {
        Ok(self * factor as Self)
    }
}

impl Number for Tensor {
    type Error = candle_core::Error;

    fn plus(&self, other: &Self) -> candle_core::Result<Self> {
        self + other
    }

    fn times(&self, other: &Self) -> candle_core::Result<Self> {
        self * other
    }

    fn scaled(&self, factor: usize) -> candle_core::Result<Self> {
        self * factor as f64
    }
}

/// What a block keeps, in numbers of one kind.
#[derive(Debug, Clone)]
pub(crate) struct Kept<T> {
    /// t.
    pub(crate) tokens: T,
    /// w.
    pub(crate) channels: T,
    /// n.
    pub(crate) rows: T,
    /// e.
    pub(crate) any_head: T,
}

/// The products of tokens and channels that the formula needs; of random gates, the mean of each.
#[derive(Debug, Clone)]
pub(crate) struct Moments<T> {
    /// t w.
    pub(crate) tw: T,
    /// t² w.
    pub(crate) ttw: T,
}

impl<T: Number> Kept<T> {
    /// The products of counts that are what they are.
    pub(crate) fn moments(&self) -> Result<Moments<T>, T::Error> {
        let tw = self.tokens.times(&self.channels)?;
        let ttw = self.tokens.times(&tw)?;
        Ok(Moments { tw, ttw })
    }
}

impl<T: Number> Moments<T> {
    /// Multiply-adds of the two products of attention.
    pub(crate) fn products(&self) -> Result<T, T::Error> {
        self.ttw.scaled(2)
    }
}

/// How many linear maps of attention run on which channels.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Maps {
    /// On the channels of kept heads: t w C each.
    kept: usize,
    /// On all channels: t C C each.
    all: usize,
}

impl Add for Maps {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            kept: self.kept + other.kept,
            all: self.all + other.all,
        }
    }
}

/// The formula for one block.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BlockFormula {
    /// C.
    pub(crate) embed_dim: usize,
    /// R.
    pub(crate) hidden_dim: usize,
    /// What an off head means, if the block gates its heads.
    pub(crate) heads: Option<HeadDeactivation>,
}

impl BlockFormula {
    /// The maps to query, key and value.
    pub(crate) fn qkv(self) -> Maps {
        match self.heads {
            Some(HeadDeactivation::Partial) => Maps { kept: 2, all: 1 },
            _ => Maps { kept: 3, all: 0 },
        }
    }

    /// The projection of attention.
    pub(crate) fn proj(self) -> Maps {
        match self.heads {
            Some(HeadDeactivation::Partial) => Maps { kept: 0, all: 1 },
            _ => Maps { kept: 1, all: 0 },
        }
    }

    /// Multiply-adds of linear maps of attention.
    pub(crate) fn maps<T: Number>(
        self,
        maps: Maps,
        kept: &Kept<T>,
        moments: &Moments<T>,
    ) -> Result<T, T::Error> {
        let of_kept = moments.tw.scaled(maps.kept)?;
        let per_channel = match maps.all {
            0 => of_kept,
            all => of_kept.plus(&kept.tokens.scaled(all * self.embed_dim)?)?,
        };
        per_channel.scaled(self.embed_dim)
    }

    /// Multiply-adds of attention: its maps and its products.
    pub(crate) fn attention<T: Number>(
        self,
        kept: &Kept<T>,
        moments: &Moments<T>,
    ) -> Result<T, T::Error> {
        let maps = self.maps(self.qkv() + self.proj(), kept, moments)?;
        maps.plus(&moments.products()?)
    }

    /// Multiply-adds of the MLP.
    pub(crate) fn mlp<T: Number>(self, kept: &Kept<T>) -> Result<T, T::Error> {
        let (c, r) = (self.embed_dim, self.hidden_dim);
        match self.heads {
            Some(HeadDeactivation::Full) => {
                let both = kept.channels.plus(&kept.any_head.scaled(c)?)?;
                kept.rows.times(&both.scaled(r)?)
            }
            Some(HeadDeactivation::HeadV2) => kept.rows.times(&kept.channels.scaled(2 * r)?),
            Some(HeadDeactivation::Partial) | None => kept.rows.scaled(2 * c * r),
        }
    }
}
