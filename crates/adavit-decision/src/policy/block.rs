//! Policies as tensors: the gates of every block for a batch.
//!
//! A gate is a factor of exactly 0 or 1. In training it carries the straight-through gradient.
//! The class token is always kept: the constructor adds its gate, and no method changes it.

use candle_core::{DType, Device, Result, Tensor, bail};

use crate::cost::macs::Geometry;
use crate::policy::kept::BlockKept;

/// The decisions of one block for a batch. An axis without gates keeps everything.
#[derive(Debug, Clone, Default)]
pub struct BlockPolicy {
    tokens: Option<Tensor>,
    heads: Option<Tensor>,
    sublayers: Option<Tensor>,
}

impl BlockPolicy {
    /// Makes a policy from gates of 0 and 1, and puts the class token's gate, 1, first.
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

    /// Gates of attention and MLP, `(B, 2)`; `None` keeps both.
    pub fn sublayers(&self) -> Option<&Tensor> {
        self.sublayers.as_ref()
    }

    /// Any of the gates, for its batch size, dtype and device; `None` if the block has no gates.
    pub(crate) fn any_gates(&self) -> Option<&Tensor> {
        self.axes().next()
    }

    /// Returns the same gates on another device.
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

    /// Reads back what each of `batch` images keeps of this block. An axis without gates keeps
    /// all tokens or heads of `geometry`.
    ///
    /// # Errors
    /// If the gates are of another batch size, or of other numbers of tokens or heads.
    pub fn kept(&self, geometry: &Geometry, batch: usize) -> Result<Vec<BlockKept>> {
        let (num_tokens, num_heads) = (geometry.num_tokens, geometry.num_heads);
        let rows = |gates: &Tensor, width: usize| -> Result<Vec<Vec<f32>>> {
            check_shape(gates, batch, width)?;
            gates.detach().to_dtype(DType::F32)?.to_vec2::<f32>()
        };
        let mut kept = vec![geometry.all(); batch];
        if let Some(gates) = self.tokens() {
            for (image, gates) in kept.iter_mut().zip(rows(gates, num_tokens)?) {
                image.patches = count(&gates[1..]);
            }
        }
        if let Some(gates) = self.heads() {
            for (image, gates) in kept.iter_mut().zip(rows(gates, num_heads)?) {
                image.heads = count(&gates);
            }
        }
        if let Some(gates) = self.sublayers() {
            for (image, gates) in kept.iter_mut().zip(rows(gates, 2)?) {
                (image.attention, image.mlp) = (gates[0] > 0.0, gates[1] > 0.0);
            }
        }
        Ok(kept)
    }

    fn axes(&self) -> impl Iterator<Item = &Tensor> {
        [&self.tokens, &self.heads, &self.sublayers]
            .into_iter()
            .flatten()
    }
}

/// The decisions of every block, in order.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// One policy per block of the model.
    pub blocks: Vec<BlockPolicy>,
}

impl Policy {
    /// Returns the same gates on another device.
    pub fn to_device(&self, device: &Device) -> Result<Self> {
        let blocks = self.blocks.iter().map(|block| block.to_device(device));
        Ok(Self {
            blocks: blocks.collect::<Result<_>>()?,
        })
    }

    /// Reads back what each of `batch` images keeps: for each image, one entry per block.
    ///
    /// # Errors
    /// As for [`BlockPolicy::kept`].
    pub fn kept(&self, geometry: &Geometry, batch: usize) -> Result<Vec<Vec<BlockKept>>> {
        let mut images = vec![Vec::with_capacity(self.blocks.len()); batch];
        for block in &self.blocks {
            for (image, kept) in images.iter_mut().zip(block.kept(geometry, batch)?) {
                image.push(kept);
            }
        }
        Ok(images)
    }
}

/// Fails unless `gates` has shape `(batch, width)`.
pub(crate) fn check_shape(gates: &Tensor, batch: usize, width: usize) -> Result<()> {
    if gates.dims() != [batch, width] {
        bail!(
            "gates: expected shape ({batch}, {width}), found {:?}",
            gates.dims()
        );
    }
    Ok(())
}

/// The number of gates that are on.
fn count(gates: &[f32]) -> usize {
    gates.iter().filter(|gate| **gate > 0.0).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn geometry() -> Geometry {
        Geometry {
            num_tokens: 5,
            embed_dim: 8,
            depth: 1,
            num_heads: 2,
            hidden_dim: 16,
            embed_macs: 0,
            head_macs: 0,
        }
    }

    fn gates(value: f32, batch: usize, width: usize) -> Result<Tensor> {
        Tensor::full(value, (batch, width), &Device::Cpu)
    }

    #[test]
    fn class_token_is_never_dropped() -> Result<()> {
        let policy = BlockPolicy::new(Some(&gates(0.0, 3, 4)?), None, None)?;
        let tokens = policy.tokens().unwrap().to_vec2::<f32>()?;
        assert_eq!(tokens, vec![vec![1.0, 0.0, 0.0, 0.0, 0.0]; 3]);
        Ok(())
    }

    #[test]
    fn token_gates_that_are_nan_still_keep_the_class_token() -> Result<()> {
        let policy = BlockPolicy::new(Some(&gates(f32::NAN, 2, 4)?), None, None)?;
        for kept in policy.kept(&geometry(), 2)? {
            assert_eq!(kept.tokens(), 1);
        }
        Ok(())
    }

    #[test]
    fn an_axis_without_gates_counts_as_all_kept() -> Result<()> {
        let kept = BlockPolicy::default().kept(&geometry(), 2)?;
        assert_eq!(kept, vec![geometry().all(); 2]);
        Ok(())
    }

    #[test]
    fn gates_of_different_batches_or_widths_are_refused() -> Result<()> {
        let heads = Some(gates(1.0, 3, 2)?);
        assert!(BlockPolicy::new(Some(&gates(1.0, 2, 4)?), heads, None).is_err());
        assert!(BlockPolicy::new(None, None, Some(gates(1.0, 2, 3)?)).is_err());
        Ok(())
    }

    #[test]
    fn gates_of_another_batch_or_model_are_not_counted() -> Result<()> {
        let refused = |policy: BlockPolicy, batch| {
            let error = policy.kept(&geometry(), batch).unwrap_err().to_string();
            assert!(error.contains("gates: expected shape"), "{error}");
        };
        let policy = BlockPolicy::new(Some(&gates(1.0, 3, 4)?), Some(gates(1.0, 3, 2)?), None)?;
        assert_eq!(policy.kept(&geometry(), 3)?.len(), 3);
        refused(policy, 2);
        refused(BlockPolicy::new(Some(&gates(1.0, 3, 7)?), None, None)?, 3);
        refused(BlockPolicy::new(None, Some(gates(1.0, 3, 3)?), None)?, 3);
        Ok(())
    }
}
