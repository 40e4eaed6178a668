//! A model prepared for inference: weights packed once, buffers reused, no graph, and nothing
//! computed that a decision turned off.
//!
//! Rows of kept tokens, channels of kept heads and images with an open gate are the parts of each
//! product; what is left out is neither read nor computed. An image's logits have the same bits
//! alone and in any batch, and for any number of threads.

mod block;
mod decide;

use adavit_decision::{DecisionConfig, HardPolicy, Thresholds};
use adavit_kernels::{Parts, PreparedLayerNorm, PreparedLinear, Rows, patchify};
use candle_core::{D, Tensor};
use candle_nn::VarBuilder;

use self::block::{Buffers, PreparedBlock};
use crate::{Error, ModelConfig, Result};

/// Tokens that are worked on at a time, whole images: their hidden activations stay in cache.
const TOKENS: usize = 1600;

/// A ViT/DeiT for inference on the CPU, with decision networks if its configuration has decisions.
///
/// A forward takes `&self`: threads share the model, each with a [`Workspace`] of its own.
#[derive(Debug)]
pub struct PreparedTransformer {
    config: ModelConfig,
    patch_embed: PreparedLinear,
    /// `(N, C)`: position embedding, with the class token added to the first row.
    positions: Vec<f32>,
    blocks: Vec<PreparedBlock>,
    norm: PreparedLayerNorm,
    head: PreparedLinear,
}

/// Buffers of a forward, kept from one to the next.
#[derive(Debug, Default)]
pub struct Workspace {
    policy: HardPolicy,
    buffers: Buffers,
    patches: Vec<f32>,
    class: Vec<f32>,
    parts: Parts,
}

impl Workspace {
    /// Returns the multiply-adds done since the last call.
    pub fn take_macs(&mut self) -> u64 {
        self.buffers.work.take_macs()
    }

    /// What the last forward computed of each image.
    pub fn policy(&self) -> &HardPolicy {
        &self.policy
    }
}

/// Where a forward's decisions come from.
#[derive(Debug, Clone, Copy)]
enum Decide<'a> {
    /// Everything is kept.
    Nothing,
    Networks,
    /// Decided, but others are taken.
    Given(&'a HardPolicy),
}

impl PreparedTransformer {
    /// Packs the tensors of `vb`, named as in published checkpoints.
    ///
    /// # Errors
    /// If the configuration is invalid, or a tensor is missing or misshapen.
    pub fn new(config: &ModelConfig, vb: &VarBuilder) -> Result<Self> {
        config.validate()?;
        let (c, p, n) = (config.embed_dim, config.patch_size, config.num_tokens());
        let patch = vb.pp("patch_embed").pp("proj");
        let weight = patch.get((c, config.in_chans, p, p), "weight")?;
        let bias = patch.get(c, "bias")?;
        let positions = vb.get((1, n, c), "pos_embed")?.flatten_all()?;
        let mut positions = positions.to_vec1::<f32>()?;
        let class = vb.get((1, 1, c), "cls_token")?.flatten_all()?;
        for (x, class) in positions.iter_mut().zip(class.to_vec1::<f32>()?) {
            *x += class;
        }
        let blocks = (0..config.depth)
            .map(|block| PreparedBlock::new(config, block, &vb.pp("blocks").pp(block)))
            .collect::<candle_core::Result<_>>()?;
        Ok(Self {
            patch_embed: PreparedLinear::new(&weight.flatten_from(1)?, Some(&bias), c)?,
            positions,
            blocks,
            norm: norm(config, &vb.pp("norm"))?,
            head: linear(c, config.num_classes, true, &vb.pp("head"))?,
            config: config.clone(),
        })
    }

    /// What the model is made of.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Moves the thresholds of every decision network; a plain model has none to move.
    pub fn set_thresholds(&mut self, thresholds: Thresholds) {
        if let Some(decisions) = &mut self.config.decisions {
            decisions.thresholds = thresholds;
        }
        for block in &mut self.blocks {
            block.set_thresholds(thresholds);
        }
    }

    /// Returns the logits, `(B, K)`, of the plain model; decision networks are not run.
    ///
    /// # Shapes
    /// `xs`: `(B, in_chans, height, width)`, f32 on the CPU.
    ///
    /// # Errors
    /// If `xs` has another shape, dtype or device.
    pub fn forward_dense(&self, xs: &Tensor, workspace: &mut Workspace) -> Result<Tensor> {
        self.run(xs, Decide::Nothing, workspace)
    }

    /// Returns the logits, `(B, K)`, under the model's own decisions: those of
    /// [`crate::VisionTransformer::forward_masked`] at inference, from what they keep alone.
    /// [`Workspace::policy`] tells what that was.
    ///
    /// # Shapes and errors
    /// As for [`Self::forward_dense`].
    pub fn forward_sparse(&self, xs: &Tensor, workspace: &mut Workspace) -> Result<Tensor> {
        self.run(xs, Decide::Networks, workspace)
    }

    /// As [`Self::forward_sparse`] under given decisions. The decision networks run all the same,
    /// and count, so that random policies cost what the model's own would.
    ///
    /// # Errors
    /// As for [`Self::forward_dense`], or if `policy` is of other sizes, drops a class token or
    /// decides what the model has no gate for.
    pub fn forward_sparse_policy(
        &self,
        xs: &Tensor,
        policy: &HardPolicy,
        workspace: &mut Workspace,
    ) -> Result<Tensor> {
        self.check_policy(policy, xs.dim(0)?)?;
        self.run(xs, Decide::Given(policy), workspace)
    }

    fn check_policy(&self, policy: &HardPolicy, b: usize) -> Result<()> {
        let (n, heads) = (self.config.num_tokens(), self.config.num_heads);
        let fail = |message: String| Err(Error::Config(format!("policy: {message}")));
        if policy.batch() != b || (b > 0 && policy.depth() != self.config.depth) {
            return fail(format!(
                "expected {} blocks of {b} images, found {} of {}",
                self.config.depth,
                policy.depth(),
                policy.batch()
            ));
        }
        let plain = DecisionConfig::none();
        let decisions = self.config.decisions.as_ref().unwrap_or(&plain);
        let allowed = |gates: bool, bits: &[bool]| gates || !bits.contains(&false);
        for (block, image) in (0..self.config.depth).flat_map(|l| (0..b).map(move |i| (l, i))) {
            let (tokens, kept) = (policy.tokens(block, image), policy.heads(block, image));
            if tokens.len() != n || kept.len() != heads {
                return fail(format!(
                    "expected {n} tokens and {heads} heads, found {} and {}",
                    tokens.len(),
                    kept.len()
                ));
            }
            if !(tokens[0]
                && allowed(decisions.gates_tokens(block), tokens)
                && allowed(decisions.gates_heads(block).is_some(), kept)
                && allowed(
                    decisions.gates_sublayers(block),
                    &policy.sublayers(block, image),
                ))
            {
                return fail(format!(
                    "image {image} drops in block {block} what the model has no gate for"
                ));
            }
        }
        Ok(())
    }

    fn run(&self, xs: &Tensor, decide: Decide, workspace: &mut Workspace) -> Result<Tensor> {
        let (b, c, h, w) = xs.dims4()?;
        let (height, width) = self.config.img_size;
        if (c, h, w) != (self.config.in_chans, height, width) || !xs.device().is_cpu() {
            return Err(Error::Config(format!(
                "images: expected shape (B, {}, {height}, {width}) on the CPU, found {:?} on {:?}",
                self.config.in_chans,
                xs.dims(),
                xs.device().location()
            )));
        }
        workspace.policy.keep_all(&self.config.geometry(), b);
        let group = (TOKENS / self.config.num_tokens()).max(1);
        let k = self.config.num_classes;
        let mut logits = vec![0.0; b * k];
        for (index, logits) in logits.chunks_mut(group * k).enumerate() {
            let first = index * group;
            let images = xs.narrow(0, first, logits.len() / k)?;
            self.run_group((&images, first), decide, logits, workspace)?;
        }
        Ok(Tensor::from_vec(logits, (b, k), xs.device())?)
    }

    /// Runs some images, of which the first is image `first` of the batch.
    fn run_group(
        &self,
        (xs, first): (&Tensor, usize),
        decide: Decide,
        logits: &mut [f32],
        workspace: &mut Workspace,
    ) -> Result<()> {
        let (b, n, c) = (xs.dim(0)?, self.config.num_tokens(), self.config.embed_dim);
        workspace.buffers.reserve(&self.config, b);
        self.embed(xs, workspace)?;
        let Workspace {
            policy,
            buffers,
            class,
            parts,
            ..
        } = workspace;
        for (index, block) in self.blocks.iter().enumerate() {
            let at = (index, first);
            let decided = !matches!(decide, Decide::Nothing);
            if decided {
                block.decide(policy, at, buffers);
            }
            if let Decide::Given(given) = decide {
                policy.copy_block(given, at, b);
            }
            block.forward(policy, at, decided, buffers);
        }
        class.clear();
        for xs in buffers.xs.chunks_exact(n * c) {
            class.extend_from_slice(&xs[..c]);
        }
        self.norm.write(class, &mut buffers.normed, Rows::All(b));
        parts.clear();
        parts.push(0..b, &[0..c], &[0..self.config.num_classes]);
        let normed = &buffers.normed[..b * c];
        self.head.write(normed, logits, parts, &mut buffers.work);
        // A gate that nobody knows makes everything unknown.
        let rows = logits.chunks_exact_mut(self.config.num_classes);
        for (logits, _) in rows.zip(&buffers.unknown).filter(|(_, unknown)| **unknown) {
            logits.fill(f32::NAN);
        }
        Ok(())
    }

    /// Fills the tokens: positions, then patches through their map on top.
    fn embed(&self, xs: &Tensor, workspace: &mut Workspace) -> Result<()> {
        let Workspace {
            buffers,
            patches: rows,
            parts,
            ..
        } = workspace;
        let patches = patchify(xs, self.config.patch_size)?;
        let depth = patches.dim(D::Minus1)?;
        let patches = patches.flatten_all()?.to_vec1::<f32>()?;
        let (n, c) = (self.config.num_tokens(), self.config.embed_dim);
        rows.resize(xs.dim(0)? * n * depth, 0.0);
        let images = patches.chunks_exact((n - 1) * depth);
        // A row for the class token in front, so that patches and tokens have the same rows.
        for (room, image) in rows.chunks_exact_mut(n * depth).zip(images) {
            room[depth..].copy_from_slice(image);
        }
        for xs in buffers.xs.chunks_exact_mut(n * c) {
            xs.copy_from_slice(&self.positions);
        }
        parts.clear();
        parts.push(buffers.patch_rows.iter().copied(), &[0..depth], &[0..c]);
        self.patch_embed
            .add(rows, &mut buffers.xs, parts, &mut buffers.work);
        Ok(())
    }
}

fn linear(
    n_in: usize,
    n_out: usize,
    bias: bool,
    vb: &VarBuilder,
) -> candle_core::Result<PreparedLinear> {
    let weight = vb.get((n_out, n_in), "weight")?;
    let bias = bias.then(|| vb.get(n_out, "bias")).transpose()?;
    PreparedLinear::new(&weight, bias.as_ref(), n_out)
}

fn norm(config: &ModelConfig, vb: &VarBuilder) -> candle_core::Result<PreparedLayerNorm> {
    let c = config.embed_dim;
    PreparedLayerNorm::new(
        &vb.get(c, "weight")?,
        &vb.get(c, "bias")?,
        config.layer_norm_eps,
    )
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;
    use crate::{Capture, Checkpoint, initial_tensors};

    fn images(config: &ModelConfig, b: usize) -> Tensor {
        let (height, width) = config.img_size;
        let len = b * config.in_chans * height * width;
        let values: Vec<f32> = (0..len).map(|i| ((i * i) as f32 * 0.37).sin()).collect();
        Tensor::from_vec(values, (b, config.in_chans, height, width), &Device::Cpu).unwrap()
    }

    fn prepared(preset: &str) -> (Checkpoint, PreparedTransformer) {
        let config = ModelConfig::preset(preset).unwrap();
        let tensors = initial_tensors(&config, 3, 0.0).unwrap();
        let checkpoint = Checkpoint { config, tensors };
        let prepared = checkpoint.prepared().unwrap();
        (checkpoint, prepared)
    }

    #[test]
    fn logits_are_those_of_the_plain_forward_for_any_batch() {
        for preset in ["nano_patch4_28", "nano_patch7_28", "nano_wide_patch7_28"] {
            let (checkpoint, prepared) = prepared(preset);
            let model = checkpoint.model(&Device::Cpu).unwrap();
            // More than one group of images, then fewer: buffers are kept.
            let mut workspace = Workspace::default();
            for b in [131, 3, 1, 0] {
                let images = images(&checkpoint.config, b);
                let expected = model.forward(&images, Capture::default()).unwrap().logits;
                let found = prepared.forward_dense(&images, &mut workspace).unwrap();
                assert_eq!(found.dims(), expected.dims());
                let difference = (found - expected).unwrap().abs().unwrap();
                let values = difference.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                // The plain forward embeds in another order; both round.
                assert!(values.iter().all(|x| *x <= 1e-5), "{preset}, {b} images");
                let macs = checkpoint.config.geometry().dense_macs();
                assert_eq!(workspace.take_macs(), macs * b as u64, "{preset}");
            }
        }
    }

    #[test]
    fn an_image_does_not_depend_on_its_batch() {
        let (checkpoint, prepared) = prepared("nano_patch7_28");
        let images = images(&checkpoint.config, 9);
        let logits = |images: &Tensor| {
            let found = prepared.forward_dense(images, &mut Workspace::default());
            found.unwrap().to_vec2::<f32>().unwrap()
        };
        let together = logits(&images);
        for (i, row) in together.iter().enumerate() {
            let alone = logits(&images.narrow(0, i, 1).unwrap());
            assert!(alone[0] == *row, "image {i}");
        }
    }

    #[test]
    fn threads_share_a_model() {
        let (checkpoint, prepared) = prepared("nano_patch7_28");
        let images = images(&checkpoint.config, 5);
        let run = || {
            let found = prepared.forward_dense(&images, &mut Workspace::default());
            found.unwrap().to_vec2::<f32>().unwrap()
        };
        let expected = run();
        std::thread::scope(|scope| {
            let threads = [scope.spawn(run), scope.spawn(run)];
            for thread in threads {
                assert!(thread.join().unwrap() == expected);
            }
        });
    }

    #[test]
    fn images_of_another_size_are_refused() {
        let (_, prepared) = prepared("nano_patch7_28");
        let images = Tensor::zeros((1, 1, 28, 14), candle_core::DType::F32, &Device::Cpu).unwrap();
        let error = prepared.forward_dense(&images, &mut Workspace::default());
        assert!(error.unwrap_err().to_string().contains("expected shape"));
    }
}
