//! The tokens-to-token module of T2T-ViT: overlapping windows, twice mixed by a small attention.
//!
//! ```text
//! image --7x7, stride 4--> tokens --attention1--> image --3x3, stride 2--> tokens --attention2-->
//! image --3x3, stride 2--> tokens --project--> (B, N - 1, C)
//! ```
//!
//! Yuan et al. 2021 (arXiv 2101.11986). The attention is a transformer layer, or a performer, whose
//! random features make it linear in the number of tokens (Choromanski et al. 2021, arXiv
//! 2009.14794). Both add their values, since in- and output differ in width.

use adavit_kernels::{HeadGate, Qkv, Window, attention, im2col, linear};
use candle_core::{D, Result, Tensor};
use candle_nn::VarBuilder;
use serde::{Deserialize, Serialize};

use crate::dropout::{Dropout, Part};
use crate::error::{self, Error};
use crate::layers::{LayerNorm, Linear, Mlp};

/// The three splits, from image to tokens.
const SPLITS: [Window; 3] = [split(7, 4, 2), split(3, 2, 1), split(3, 2, 1)];

/// Pixels from one token to the next.
pub(crate) const PATCH_SIZE: usize = SPLITS[0].stride * SPLITS[1].stride * SPLITS[2].stride;

/// Of the module's own norms, whatever the blocks have: PyTorch's default.
const LAYER_NORM_EPS: f64 = 1e-5;

/// Added to the performer's denominator.
const PERFORMER_EPS: f64 = 1e-8;

const fn split(kernel_size: usize, stride: usize, padding: usize) -> Window {
    Window {
        kernel_size,
        stride,
        padding,
    }
}

/// How the tokens of a split see each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TokensType {
    /// Random features, of half as many dimensions as the tokens have.
    Performer,
    /// Softmax attention with one head.
    Transformer,
}

/// What the tokens-to-token module is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct T2tConfig {
    /// How tokens see each other.
    pub tokens_type: TokensType,
    /// Their width; 64 in every published model.
    pub token_dim: usize,
}

impl T2tConfig {
    pub(crate) fn validate(&self, (height, width): (usize, usize)) -> error::Result<()> {
        let d = self.token_dim;
        if !(2..=1 << 14).contains(&d) {
            return Err(Error::Config(format!(
                "tokens_to_token.token_dim: expected between 2 and 16384, found {d}"
            )));
        }
        let smallest = SPLITS[0].kernel_size - 2 * SPLITS[0].padding;
        if height < smallest || width < smallest {
            return Err(Error::Config(format!(
                "img_size {height}x{width}: expected at least {smallest} pixels in each direction"
            )));
        }
        Ok(())
    }

    /// The performer's random features.
    pub(crate) fn num_features(&self) -> usize {
        self.token_dim / 2
    }

    /// Multiply-adds of every product of the module, for one image.
    pub(crate) fn macs(&self, img_size: (usize, usize), in_chans: usize, embed_dim: usize) -> u64 {
        let [n1, n2, n3] = grids(img_size).map(|(rows, columns)| rows * columns);
        let (d, m) = (self.token_dim, self.num_features());
        let layer = |n: usize, dim: usize| {
            let mixing = match self.tokens_type {
                // Features of keys and queries, the denominator, keys by values, queries by both.
                TokensType::Performer => n * (4 * d * m + m),
                TokensType::Transformer => 2 * n * n * d,
            };
            // Keys, queries and values; the projection; the MLP.
            n * 3 * dim * d + mixing + 3 * n * d * d
        };
        let window = |index: usize, chans: usize| chans * SPLITS[index].kernel_size.pow(2);
        let macs = layer(n1, window(0, in_chans)) + layer(n2, window(1, d));
        (macs + n3 * window(2, d) * embed_dim) as u64
    }
}

/// The grid of tokens after each split, rows then columns.
fn grids((height, width): (usize, usize)) -> [(usize, usize); 3] {
    let after = |size: usize, split: Window| {
        (size + 2 * split.padding).saturating_sub(split.kernel_size) / split.stride + 1
    };
    let mut grid = (height, width);
    SPLITS.map(|split| {
        grid = (after(grid.0, split), after(grid.1, split));
        grid
    })
}

/// The grid of tokens that the module makes of an image, rows then columns.
pub(crate) fn grid(img_size: (usize, usize)) -> (usize, usize) {
    grids(img_size)[2]
}

#[derive(Debug, Clone)]
pub(crate) struct TokensToToken {
    attention1: TokenLayer,
    attention2: TokenLayer,
    project: Linear,
}

impl TokensToToken {
    pub(crate) fn new(
        config: &T2tConfig,
        in_chans: usize,
        embed_dim: usize,
        vb: &VarBuilder,
    ) -> Result<Self> {
        let d = config.token_dim;
        let dims = [in_chans, d, d];
        let [first, second, last] =
            [0, 1, 2].map(|index| dims[index] * SPLITS[index].kernel_size.pow(2));
        Ok(Self {
            attention1: TokenLayer::new(config, first, &vb.pp("attention1"))?,
            attention2: TokenLayer::new(config, second, &vb.pp("attention2"))?,
            project: Linear::new(last, embed_dim, true, &vb.pp("project"))?,
        })
    }

    /// `(B, in_chans, height, width)` to `(B, N - 1, C)`, without what `dropout` leaves out.
    pub(crate) fn forward(&self, xs: &Tensor, dropout: Option<&Dropout>) -> Result<Tensor> {
        let dropped = |layer| Dropped { dropout, layer };
        let (b, _, height, width) = xs.dims4()?;
        let grids = grids((height, width));
        let as_image = |xs: Tensor, (rows, columns): (usize, usize)| {
            let d = xs.dim(D::Minus1)?;
            xs.transpose(1, 2)?.reshape((b, d, rows, columns))
        };
        let xs = self
            .attention1
            .forward(&im2col(xs, SPLITS[0])?, dropped(0))?;
        let xs = as_image(xs, grids[0])?;
        let xs = self
            .attention2
            .forward(&im2col(&xs, SPLITS[1])?, dropped(1))?;
        let xs = as_image(xs, grids[1])?;
        self.project.forward(&im2col(&xs, SPLITS[2])?)
    }
}

/// One layer of attention over the tokens of a split: `(B, n, dim)` to `(B, n, token_dim)`.
#[derive(Debug, Clone)]
struct TokenLayer {
    norm1: LayerNorm,
    mixing: Mixing,
    proj: Linear,
    norm2: LayerNorm,
    mlp: Mlp,
}

/// What is left out of a layer, if anything.
#[derive(Debug, Clone, Copy)]
struct Dropped<'a> {
    dropout: Option<&'a Dropout>,
    layer: usize,
}

impl Dropped<'_> {
    fn of(self, part: Part, ys: Tensor) -> Result<Tensor> {
        match self.dropout {
            Some(dropout) => dropout.of_tokens(part, self.layer, ys),
            None => Ok(ys),
        }
    }
}

#[derive(Debug, Clone)]
enum Mixing {
    Performer {
        kqv: Linear,
        /// `(m, token_dim)`, fixed.
        w: Tensor,
    },
    Transformer {
        qkv: Linear,
        /// Of the scores: one over the square root of the *input's* width, as published.
        scale: f64,
    },
}

impl TokenLayer {
    fn new(config: &T2tConfig, dim: usize, vb: &VarBuilder) -> Result<Self> {
        let d = config.token_dim;
        let mlp = vb.pp("mlp");
        let norm = |dim: usize, name: &str| LayerNorm::new(dim, LAYER_NORM_EPS, &vb.pp(name));
        let (mixing, proj, names) = match config.tokens_type {
            TokensType::Performer => {
                let kqv = Linear::new(dim, 3 * d, true, &vb.pp("kqv"))?;
                let w = vb.get((config.num_features(), d), "w")?.detach();
                (Mixing::Performer { kqv, w }, vb.pp("proj"), ["0", "2"])
            }
            TokensType::Transformer => {
                let attn = vb.pp("attn");
                let qkv = Linear::new(dim, 3 * d, false, &attn.pp("qkv"))?;
                let scale = (dim as f64).sqrt().recip();
                let names = ["fc1", "fc2"];
                (Mixing::Transformer { qkv, scale }, attn.pp("proj"), names)
            }
        };
        Ok(Self {
            norm1: norm(dim, "norm1")?,
            mixing,
            proj: Linear::new(d, d, true, &proj)?,
            norm2: norm(d, "norm2")?,
            mlp: Mlp::named(d, d, [&mlp.pp(names[0]), &mlp.pp(names[1])])?,
        })
    }

    fn forward(&self, xs: &Tensor, dropped: Dropped) -> Result<Tensor> {
        let zs = self.norm1.forward(xs)?;
        let (ys, v) = match &self.mixing {
            Mixing::Performer { kqv, w } => {
                let [k, q, v] = thirds(&kqv.forward(&zs)?)?;
                (perform(&k, &q, &v, w)?, v)
            }
            Mixing::Transformer { qkv, scale } => {
                let [q, k, v] = thirds(&qkv.forward(&zs)?)?;
                // The operation divides by the square root of the head's width.
                let q = (q * (scale * (v.dim(D::Minus1)? as f64).sqrt()))?;
                let qkv = Qkv {
                    q: &q,
                    k: &k,
                    v: &v,
                };
                (attention(qkv, 1, None, HeadGate::All)?, v)
            }
        };
        let xs = (v + dropped.of(Part::TokenProj, self.proj.forward(&ys)?)?)?;
        let ys = self.mlp.forward(&self.norm2.forward(&xs)?)?;
        xs + dropped.of(Part::TokenMlp, ys)?
    }
}

/// The three parts of the last dimension.
fn thirds(xs: &Tensor) -> Result<[Tensor; 3]> {
    let d = xs.dim(D::Minus1)? / 3;
    let part = |index: usize| xs.narrow(D::Minus1, index * d, d)?.contiguous();
    Ok([part(0)?, part(1)?, part(2)?])
}

/// Attention by random features: phi(q) (phi(k)^T v) / (phi(q) sum phi(k) + eps).
fn perform(k: &Tensor, q: &Tensor, v: &Tensor, w: &Tensor) -> Result<Tensor> {
    let (kp, qp) = (features(k, w)?, features(q, w)?);
    let total = kp.sum(1)?.unsqueeze(2)?;
    let denominator = (qp.matmul(&total)? + PERFORMER_EPS)?;
    let kv = kp.transpose(1, 2)?.matmul(v)?;
    qp.matmul(&kv)?.broadcast_div(&denominator)
}

/// exp(w x - |x|^2 / 2) / sqrt(m), positive features of the softmax kernel.
fn features(xs: &Tensor, w: &Tensor) -> Result<Tensor> {
    let squares = (xs.sqr()?.sum_keepdim(D::Minus1)? / 2.0)?;
    let scores = linear(xs, w, None)?.broadcast_sub(&squares)?;
    scores.exp()? / (w.dim(0)? as f64).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grids_are_those_of_the_published_model() {
        assert_eq!(grids((224, 224)), [(56, 56), (28, 28), (14, 14)]);
        assert_eq!(grids((384, 256)), [(96, 64), (48, 32), (24, 16)]);
        assert_eq!(grids((28, 3)), [(7, 1), (4, 1), (2, 1)]);
    }

    #[test]
    fn macs_count_every_product() {
        let config = |tokens_type| T2tConfig {
            tokens_type,
            token_dim: 64,
        };
        let rest = |n: u64, dim: u64| n * (3 * dim * 64 + 3 * 64 * 64);
        let project = 196 * 576 * 448;
        let performer = 3136 * (4 * 64 * 32 + 32) + 784 * (4 * 64 * 32 + 32);
        let transformer = 2 * 64 * (3136 * 3136 + 784 * 784);
        for (tokens_type, mixing) in [
            (TokensType::Performer, performer),
            (TokensType::Transformer, transformer),
        ] {
            let macs = config(tokens_type).macs((224, 224), 3, 448);
            assert_eq!(macs, rest(3136, 147) + rest(784, 576) + project + mixing);
        }
    }
}
