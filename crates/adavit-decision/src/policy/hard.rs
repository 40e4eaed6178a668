//! Policies as plain bits, for code that skips what is off.
//!
//! The class token is always kept: its bit is set when a policy is made, and no method changes it.

use std::ops::Range;

use candle_core::{DType, Result, Tensor, bail};

use crate::cost::macs::Geometry;
use crate::policy::block::{BlockPolicy, Policy, check_shape};
use crate::policy::kept::BlockKept;

/// The decisions of every block for a batch, gate by gate; an axis without gates keeps everything.
///
/// The buffers are reused from one batch to the next.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HardPolicy {
    batch: usize,
    num_tokens: usize,
    num_heads: usize,
    /// `(L, B, N)`; the first of each image, the class token's, is always set.
    tokens: Vec<bool>,
    /// `(L, B, H)`.
    heads: Vec<bool>,
    /// `(L, B, 2)`, attention then MLP.
    sublayers: Vec<bool>,
}

impl HardPolicy {
    /// Makes a policy that keeps everything of `batch` images.
    pub fn all(geometry: &Geometry, batch: usize) -> Self {
        let mut policy = Self::default();
        policy.keep_all(geometry, batch);
        policy
    }

    /// Reads the gates of a policy.
    ///
    /// # Errors
    /// If the policy is of other sizes, or a gate is neither 0 nor 1.
    pub fn new(policy: &Policy, geometry: &Geometry, batch: usize) -> Result<Self> {
        if policy.blocks.len() != geometry.depth {
            bail!(
                "policy: expected {} blocks, found {}",
                geometry.depth,
                policy.blocks.len()
            );
        }
        let mut hard = Self::all(geometry, batch);
        for (index, block) in policy.blocks.iter().enumerate() {
            if hard.set_block(index, block)?.contains(&true) {
                bail!("gates: expected 0 or 1, found NaN");
            }
        }
        Ok(hard)
    }

    /// Reads the gates of block `index`; an axis without gates stays as it is. Returns which
    /// images have a gate that is NaN. A NaN reads as off.
    ///
    /// # Errors
    /// If the gates are of other sizes, or a gate is neither 0, 1 nor NaN.
    pub fn set_block(&mut self, index: usize, block: &BlockPolicy) -> Result<Vec<bool>> {
        let batch = self.batch;
        let mut unknown = vec![false; batch];
        let axes = [
            (block.tokens(), self.num_tokens, &mut self.tokens),
            (block.heads(), self.num_heads, &mut self.heads),
            (block.sublayers(), 2, &mut self.sublayers),
        ];
        for (gates, width, bits) in axes {
            if let Some(gates) = gates {
                let start = index * batch * width;
                let bits = &mut bits[start..start + batch * width];
                check_shape(gates, batch, width)?;
                read(gates, bits, &mut unknown)?;
            }
        }
        Ok(unknown)
    }

    /// Starts over with a policy that keeps everything of `batch` images.
    pub fn keep_all(&mut self, geometry: &Geometry, batch: usize) {
        (self.batch, self.num_tokens, self.num_heads) =
            (batch, geometry.num_tokens, geometry.num_heads);
        let images = geometry.depth * batch;
        let axes = [
            (&mut self.tokens, geometry.num_tokens),
            (&mut self.heads, geometry.num_heads),
            (&mut self.sublayers, 2),
        ];
        for (bits, width) in axes {
            bits.clear();
            bits.resize(images * width, true);
        }
    }

    /// The number of images.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// The number of blocks.
    pub fn depth(&self) -> usize {
        self.sublayers.len() / (2 * self.batch).max(1)
    }

    /// Which tokens of an image a block keeps, class token first.
    pub fn tokens(&self, block: usize, image: usize) -> &[bool] {
        row(&self.tokens, block * self.batch + image, self.num_tokens)
    }

    /// Which heads.
    pub fn heads(&self, block: usize, image: usize) -> &[bool] {
        row(&self.heads, block * self.batch + image, self.num_heads)
    }

    /// Whether attention and whether the MLP runs.
    pub fn sublayers(&self, block: usize, image: usize) -> [bool; 2] {
        let gates = row(&self.sublayers, block * self.batch + image, 2);
        [gates[0], gates[1]]
    }

    /// The patch tokens of an image in a block, to change. The class token is not among them.
    pub fn patches_mut(&mut self, block: usize, image: usize) -> &mut [bool] {
        let n = self.num_tokens;
        &mut self.tokens[(block * self.batch + image) * n..][1..n]
    }

    /// The heads of an image in a block, to change.
    pub fn heads_mut(&mut self, block: usize, image: usize) -> &mut [bool] {
        let n = self.num_heads;
        &mut self.heads[(block * self.batch + image) * n..][..n]
    }

    /// The gates of attention and MLP of an image in a block, to change.
    pub fn sublayers_mut(&mut self, block: usize, image: usize) -> &mut [bool] {
        &mut self.sublayers[(block * self.batch + image) * 2..][..2]
    }

    /// Returns the gates of block `block` with those at 0 that are off here. Gates that are NaN stay
    /// so.
    ///
    /// # Errors
    /// If the gates are of other sizes.
    pub fn restrict(&self, block: usize, gates: &BlockPolicy) -> Result<BlockPolicy> {
        let times = |gates: &Tensor, bits: &[bool], width: usize| -> Result<Tensor> {
            check_shape(gates, self.batch, width)?;
            let bits = &bits[block * self.batch * width..][..self.batch * width];
            let bits: Vec<f32> = bits.iter().map(|bit| f32::from(u8::from(*bit))).collect();
            let bits = Tensor::from_vec(bits, (self.batch, width), gates.device())?;
            gates * bits.to_dtype(gates.dtype())?
        };
        let n = self.num_tokens;
        let tokens = gates.tokens();
        let tokens = tokens
            .map(|gates| times(gates, &self.tokens, n))
            .transpose()?;
        let patches = tokens
            .map(|tokens| tokens.narrow(1, 1, n - 1))
            .transpose()?;
        let heads = gates.heads();
        let sublayers = gates.sublayers();
        BlockPolicy::new(
            patches.as_ref(),
            heads
                .map(|gates| times(gates, &self.heads, self.num_heads))
                .transpose()?,
            sublayers
                .map(|gates| times(gates, &self.sublayers, 2))
                .transpose()?,
        )
    }

    /// Copies the decisions of `other` on block `block` for `images`, which have the same places
    /// in both.
    ///
    /// # Errors
    /// If the two are of different sizes, or have no such block or images.
    pub fn copy_block(&mut self, other: &Self, block: usize, images: Range<usize>) -> Result<()> {
        if images.is_empty() {
            return Ok(());
        }
        self.check_sizes(other)?;
        let batch = self.batch;
        if batch != other.batch || images.end > batch || block >= self.depth() {
            bail!(
                "policy: expected block {block} and images {images:?} in both, found {} and {} \
                 images of {} blocks",
                batch,
                other.batch,
                self.depth()
            );
        }
        for (bits, others, width) in self.axes_with(other) {
            let start = block * batch;
            let range = (start + images.start) * width..(start + images.end) * width;
            bits[range.clone()].copy_from_slice(&others[range]);
        }
        Ok(())
    }

    /// The decisions on some of the images.
    ///
    /// # Panics
    /// If the images are not all there.
    #[must_use]
    pub fn images(&self, images: Range<usize>) -> Self {
        let from = images.start;
        let mut some = Self {
            batch: images.len(),
            num_tokens: self.num_tokens,
            num_heads: self.num_heads,
            ..Self::default()
        };
        for (bits, others, width) in some.axes_with(self) {
            for of_block in others.chunks_exact((self.batch * width).max(1)) {
                bits.extend_from_slice(&of_block[from * width..][..images.len() * width]);
            }
        }
        some
    }

    /// Copies the decisions of `other` on all its images to the images from `first` on.
    ///
    /// # Errors
    /// If the two are of different depths, tokens or heads, or there are not as many images.
    pub fn copy_images(&mut self, other: &Self, first: usize) -> Result<()> {
        let (batch, count) = (self.batch, other.batch);
        if count == 0 {
            return Ok(());
        }
        self.check_sizes(other)?;
        if first + count > batch {
            bail!("policy: expected at most {batch} images, found {count} from image {first} on");
        }
        for (bits, others, width) in self.axes_with(other) {
            let others = others.chunks_exact((count * width).max(1));
            for (bits, others) in bits.chunks_exact_mut((batch * width).max(1)).zip(others) {
                bits[first * width..][..count * width].copy_from_slice(others);
            }
        }
        Ok(())
    }

    /// Fails unless both are of the same model.
    fn check_sizes(&self, other: &Self) -> Result<()> {
        let sizes = |policy: &Self| [policy.depth(), policy.num_tokens, policy.num_heads];
        let (expected, found) = (sizes(self), sizes(other));
        if expected != found {
            bail!("policy: expected blocks, tokens and heads {expected:?}, found {found:?}");
        }
        Ok(())
    }

    /// The bits of each axis, those of another policy, and how many an image has per block.
    fn axes_with<'a>(&'a mut self, other: &'a Self) -> [(&'a mut Vec<bool>, &'a [bool], usize); 3] {
        [
            (&mut self.tokens, &other.tokens, self.num_tokens),
            (&mut self.heads, &other.heads, self.num_heads),
            (&mut self.sublayers, &other.sublayers, 2),
        ]
    }

    /// Returns what an image keeps of a block.
    pub fn block_kept(&self, block: usize, image: usize) -> BlockKept {
        let count = |bits: &[bool]| bits.iter().filter(|bit| **bit).count();
        let [attention, mlp] = self.sublayers(block, image);
        BlockKept {
            patches: count(&self.tokens(block, image)[1..]),
            heads: count(self.heads(block, image)),
            attention,
            mlp,
        }
    }

    /// Returns what an image keeps, block by block.
    pub fn image_kept(&self, image: usize) -> Vec<BlockKept> {
        (0..self.depth())
            .map(|block| self.block_kept(block, image))
            .collect()
    }
}

fn row(bits: &[bool], index: usize, width: usize) -> &[bool] {
    &bits[index * width..][..width]
}

/// Reads gates of 0, 1 and NaN, `(unknown.len(), _)`, and marks the images with a NaN.
fn read(gates: &Tensor, bits: &mut [bool], unknown: &mut [bool]) -> Result<()> {
    let values = gates.detach().to_dtype(DType::F32)?.to_vec2::<f32>()?;
    let width = gates.dim(1)?;
    for (row, (values, unknown)) in values.into_iter().zip(unknown).enumerate() {
        for (bit, gate) in bits[row * width..][..width].iter_mut().zip(values) {
            if gate != 0.0 && gate != 1.0 && !gate.is_nan() {
                bail!("gates: expected 0 or 1, found {gate}");
            }
            *unknown |= gate.is_nan();
            *bit = gate == 1.0;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    fn geometry() -> Geometry {
        Geometry {
            num_tokens: 4,
            embed_dim: 8,
            depth: 2,
            num_heads: 2,
            hidden_dim: 16,
            embed_macs: 0,
            head_macs: 0,
        }
    }

    #[test]
    fn gates_are_read_block_by_block_and_absent_ones_keep_everything() -> Result<()> {
        let patches = Tensor::new(&[[0f32, 1., 0.], [1., 1., 1.]], &Device::Cpu)?;
        let heads = Tensor::new(&[[0f32, 1.], [0., 0.]], &Device::Cpu)?;
        let sublayers = Tensor::new(&[[1f32, 0.], [0., 1.]], &Device::Cpu)?;
        let policy = Policy {
            blocks: vec![
                BlockPolicy::default(),
                BlockPolicy::new(Some(&patches), Some(heads), Some(sublayers))?,
            ],
        };
        let hard = HardPolicy::new(&policy, &geometry(), 2)?;
        assert_eq!(hard.tokens(0, 1), [true; 4]);
        assert_eq!(hard.tokens(1, 0), [true, false, true, false]);
        assert_eq!(hard.heads(1, 0), [false, true]);
        assert_eq!(hard.sublayers(1, 1), [false, true]);
        let kept = policy.kept(&geometry(), 2)?;
        assert_eq!(hard.image_kept(0), kept[0]);
        assert_eq!(hard.image_kept(1), kept[1]);
        Ok(())
    }

    #[test]
    fn some_images_are_taken_out_and_put_back() -> Result<()> {
        let mut policy = HardPolicy::all(&geometry(), 5);
        for (block, image) in (0..2).flat_map(|block| (0..5).map(move |image| (block, image))) {
            policy.patches_mut(block, image)[image % 3] = block == 0;
            policy.heads_mut(block, image)[image % 2] = false;
            policy.sublayers_mut(block, image)[0] = image > block;
        }
        let some = policy.images(2..4);
        assert_eq!((some.batch(), some.depth()), (2, 2));
        for image in 0..2 {
            assert_eq!(some.image_kept(image), policy.image_kept(2 + image));
            assert_eq!(some.tokens(1, image), policy.tokens(1, 2 + image));
        }
        let mut again = HardPolicy::all(&geometry(), 5);
        for (first, images) in [(0, 0..2), (2, 2..4), (4, 4..5)] {
            again.copy_images(&policy.images(images), first)?;
        }
        assert_eq!(again, policy);
        assert_eq!(policy.images(3..3).batch(), 0);
        Ok(())
    }

    #[test]
    fn soft_gates_and_other_sizes_are_refused() -> Result<()> {
        let policy = |value: f32, batch: usize| -> Result<Policy> {
            let heads = Tensor::full(value, (batch, 2), &Device::Cpu)?;
            let block = BlockPolicy::new(None, Some(heads), None)?;
            Ok(Policy {
                blocks: vec![block; 2],
            })
        };
        for (policy, part) in [
            (policy(0.5, 3)?, "0 or 1"),
            (policy(f32::NAN, 3)?, "0 or 1"),
            (policy(1.0, 2)?, "shape"),
            (Policy::default(), "2 blocks"),
        ] {
            let error = HardPolicy::new(&policy, &geometry(), 3).unwrap_err();
            assert!(error.to_string().contains(part), "{error}");
        }
        Ok(())
    }
}
