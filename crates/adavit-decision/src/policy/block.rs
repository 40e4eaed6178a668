//! Policies: what each block computes for each image.
//!
//! A gate is a factor of exactly 0 or 1; in training it carries the straight-through gradient.
//! The class token is always kept: no constructor can drop it.

use candle_core::{DType, Device, Result, Tensor, bail};
use serde::Serialize;

/// The decisions of one block for a batch. An axis without gates keeps everything.
#[derive(Debug, Clone, Default)]
pub struct BlockPolicy {
    tokens: Option<Tensor>,
    heads: Option<Tensor>,
    sublayers: Option<Tensor>,
}

impl BlockPolicy {
    /// Makes a policy from gates of 0 and 1; the class token's gate, 1, is put first.
    ///
    /// # Shapes
    /// `patches`: `(B, N - 1)`, `heads`: `(B, H)`, `sublayers`: `(B, 2)`, attention then MLP.
    pub fn new(
        patches: Option<&Tensor>,
        heads: Option<Tensor>,
        sublayers: Option<Tensor>,
    ) -> Result<Self> {
        let tokens = match patches {
            Some(patches) => {
                let (b, _) = patches.dims2()?;
                let class = Tensor::ones((b, 1), patches.dtype(), patches.device())?;
                Some(Tensor::cat(&[&class, patches], 1)?)
            }
            None => None,
        };
        if let Some(sublayers) = &sublayers
            && sublayers.dim(1)? != 2
        {
            bail!(
                "sub-layer gates: expected shape (B, 2), found {:?}",
                sublayers.dims()
            );
        }
        let policy = Self {
            tokens,
            heads,
            sublayers,
        };
        let batches = policy
            .axes()
            .map(|gates| gates.dim(0))
            .collect::<Result<Vec<_>>>()?;
        if batches.iter().any(|&batch| batch != batches[0]) {
            bail!("gates of one block: expected one batch size, found {batches:?}");
        }
        Ok(policy)
    }

    /// Token gates, `(B, N)`, class token first; `None` keeps every token.
    pub fn tokens(&self) -> Option<&Tensor> {
        self.tokens.as_ref()
    }

    /// Head gates, `(B, H)`; `None` keeps every head.
    pub fn heads(&self) -> Option<&Tensor> {
        self.heads.as_ref()
    }

    /// Sub-layer gates, `(B, 2)`, attention then MLP; `None` keeps both.
    pub fn sublayers(&self) -> Option<&Tensor> {
        self.sublayers.as_ref()
    }

    /// The same gates on another device.
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        let moved = |gates: &Option<Tensor>| {
            let gates = gates.as_ref();
            gates.map(|gates| gates.to_device(device)).transpose()
        };
        Ok(Self {
            tokens: moved(&self.tokens)?,
            heads: moved(&self.heads)?,
            sublayers: moved(&self.sublayers)?,
        })
    }

    /// Reads back what each of the `batch` images uses of this block, where an axis without gates
    /// counts `num_tokens` tokens or `num_heads` heads.
    pub fn usage(
        &self,
        batch: usize,
        num_tokens: usize,
        num_heads: usize,
    ) -> Result<Vec<BlockUse>> {
        let count = |gates: Option<&Tensor>, all: usize| -> Result<Vec<usize>> {
            let Some(gates) = gates else {
                return Ok(vec![all; batch]);
            };
            let kept = gates.detach().to_dtype(DType::F32)?.sum(1)?;
            Ok(kept.to_vec1::<f32>()?.iter().map(|&n| n as usize).collect())
        };
        let tokens = count(self.tokens(), num_tokens)?;
        let heads = count(self.heads(), num_heads)?;
        let sublayers = match self.sublayers() {
            Some(gates) => gates.detach().to_dtype(DType::F32)?.to_vec2::<f32>()?,
            None => vec![vec![1.0, 1.0]; batch],
        };
        Ok((0..batch)
            .map(|image| BlockUse {
                tokens: tokens[image],
                heads: heads[image],
                attention: sublayers[image][0] > 0.0,
                mlp: sublayers[image][1] > 0.0,
            })
            .collect())
    }

    fn axes(&self) -> impl Iterator<Item = &Tensor> {
        [&self.tokens, &self.heads, &self.sublayers]
            .into_iter()
            .flatten()
    }
}

/// What one image uses of one block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct BlockUse {
    /// Kept tokens, class token included: at least 1.
    pub tokens: usize,
    /// Kept heads.
    pub heads: usize,
    /// Whether attention runs.
    pub attention: bool,
    /// Whether the MLP runs.
    pub mlp: bool,
}

/// The decisions of every block, in order.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// One policy per block of the model.
    pub blocks: Vec<BlockPolicy>,
}

impl Policy {
    /// The same gates on another device.
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        let blocks = self.blocks.iter().map(|block| block.to_device(device));
        Ok(Self {
            blocks: blocks.collect::<Result<_>>()?,
        })
    }

    /// Reads back what each image uses: for each of `batch` images, one entry per block.
    pub fn usage(
        &self,
        batch: usize,
        num_tokens: usize,
        num_heads: usize,
    ) -> Result<Vec<Vec<BlockUse>>> {
        let mut images = vec![Vec::with_capacity(self.blocks.len()); batch];
        for block in &self.blocks {
            for (image, used) in images
                .iter_mut()
                .zip(block.usage(batch, num_tokens, num_heads)?)
            {
                image.push(used);
            }
        }
        Ok(images)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn class_token_is_never_dropped() -> Result<()> {
        let none = Tensor::zeros((3, 4), DType::F32, &Device::Cpu)?;
        let policy = BlockPolicy::new(Some(&none), None, None)?;
        let tokens = policy.tokens().unwrap().to_vec2::<f32>()?;
        assert_eq!(tokens, vec![vec![1.0, 0.0, 0.0, 0.0, 0.0]; 3]);
        Ok(())
    }

    #[test]
    fn an_axis_without_gates_counts_as_all_kept() -> Result<()> {
        let used = BlockPolicy::default().usage(2, 17, 4)?;
        let all = BlockUse {
            tokens: 17,
            heads: 4,
            attention: true,
            mlp: true,
        };
        assert_eq!(used, vec![all; 2]);
        Ok(())
    }

    #[test]
    fn gates_of_different_batches_or_widths_are_refused() -> Result<()> {
        let gates = |b, n| Tensor::ones((b, n), DType::F32, &Device::Cpu);
        assert!(BlockPolicy::new(Some(&gates(2, 4)?), Some(gates(3, 2)?), None).is_err());
        assert!(BlockPolicy::new(None, None, Some(gates(2, 3)?)).is_err());
        Ok(())
    }
}
