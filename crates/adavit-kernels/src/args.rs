//! Arguments that the operations, their composed forms and the loops on slices share.

use candle_core::{Result, Tensor, bail};

/// An affine map `y = x W^T + b`.
#[derive(Debug, Clone, Copy)]
pub struct AffineMap<'a> {
    /// W, `(O, I)`.
    pub weight: &'a Tensor,
    /// b, `(O,)`; `None` is zero.
    pub bias: Option<&'a Tensor>,
}

/// The two maps of an MLP.
#[derive(Debug, Clone, Copy)]
pub struct MlpMaps<'a> {
    /// `(R, C)`.
    pub fc1_weight: &'a Tensor,
    /// `(R,)`.
    pub fc1_bias: &'a Tensor,
    /// `(O, R)`.
    pub fc2_weight: &'a Tensor,
    /// `(O,)`.
    pub fc2_bias: &'a Tensor,
}

/// The four maps of multi-head attention.
#[derive(Debug, Clone, Copy)]
pub struct AttentionMaps<'a> {
    /// Weight `(C, I)`.
    pub query: AffineMap<'a>,
    /// Weight `(C, I)`.
    pub key: AffineMap<'a>,
    /// Weight `(C, I)`.
    pub value: AffineMap<'a>,
    /// Weight `(O, C)`.
    pub proj: AffineMap<'a>,
}

impl<'a> AttentionMaps<'a> {
    pub(crate) fn all(&self) -> [AffineMap<'a>; 4] {
        [self.query, self.key, self.value, self.proj]
    }
}

/// Queries, keys and values, each `(B, N, C)`.
#[derive(Debug, Clone, Copy)]
pub struct Qkv<'a> {
    /// The queries.
    pub q: &'a Tensor,
    /// The keys.
    pub k: &'a Tensor,
    /// The values.
    pub v: &'a Tensor,
}

/// How head gates `(B, H)` act on attention.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum HeadGate<'a> {
    /// Every head is on.
    All,
    /// Query, key and value of an off head are zero, and so is its output.
    Full(&'a Tensor),
    /// The attention matrix of an off head is the identity: its value passes through.
    Partial(&'a Tensor),
}

impl<'a> HeadGate<'a> {
    pub(crate) fn gates(self) -> Option<&'a Tensor> {
        match self {
            HeadGate::All => None,
            HeadGate::Full(gates) | HeadGate::Partial(gates) => Some(gates),
        }
    }
}

/// Square windows over an image, as a convolution reads them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// The side of a window, in pixels.
    pub kernel_size: usize,
    /// The distance from one window to the next, in pixels, in both directions.
    pub stride: usize,
    /// The zeros around the image, in pixels on each side.
    pub padding: usize,
}

impl Window {
    /// Returns how many windows fit `size` pixels; pixels beyond the last window are ignored.
    pub(crate) fn count(&self, size: usize) -> Result<usize> {
        let (k, padded) = (self.kernel_size, size + 2 * self.padding);
        if k == 0 || k > padded {
            bail!("window: expected a kernel size between 1 and {padded}, found {k}");
        }
        if self.stride == 0 {
            bail!("window: expected a stride of at least 1, found 0");
        }
        Ok((padded - k) / self.stride + 1)
    }
}
