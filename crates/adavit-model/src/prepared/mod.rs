//! A model prepared for inference, which computes nothing that a decision turned off.
//!
//! On the CPU weights are packed once, buffers reused, and there is no graph: rows of kept tokens,
//! channels of kept heads and images with an open gate are the parts of each product; what is left
//! out is neither read nor computed. An image's logits have the same bits alone and in any batch,
//! and for any number of threads. On other devices the rows are gathered for candle's operations.

mod block;
mod conv_stem;
mod decide;
mod packed;

use adavit_decision::{DecisionConfig, HardPolicy, Thresholds};
use candle_core::Tensor;
use candle_nn::VarBuilder;

pub use self::block::Strategy;
use self::packed::{PackedTransformer, Rooms};
use crate::block::Gathered;
use crate::{Capture, Error, ModelConfig, Result, VisionTransformer};

/// A ViT/DeiT for inference, with decision networks if its configuration has decisions.
///
/// A forward takes `&self`: threads share the model, each with a [`Workspace`] of its own.
#[derive(Debug)]
pub struct PreparedTransformer {
    config: ModelConfig,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Packed(Box<PackedTransformer>),
    Gathered(Box<VisionTransformer>),
}

/// Buffers of a forward, kept from one to the next.
#[derive(Debug, Default)]
pub struct Workspace {
    policy: HardPolicy,
    rooms: Rooms,
    /// Multiply-adds of the gathered path.
    gathered_macs: u64,
}

impl Workspace {
    /// Returns the multiply-adds done since the last call.
    pub fn take_macs(&mut self) -> u64 {
        std::mem::take(&mut self.gathered_macs) + self.rooms.take_macs()
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
    /// Prepares the tensors of `vb`, named as in published checkpoints, for the device that they
    /// are on.
    ///
    /// # Errors
    /// If the configuration is invalid, or a tensor is missing or misshapen.
    pub fn new(config: &ModelConfig, vb: &VarBuilder) -> Result<Self> {
        if !vb.device().is_cpu() {
            return Self::gathered(config, vb);
        }
        config.validate()?;
        Ok(Self {
            kind: Kind::Packed(Box::new(PackedTransformer::new(config, vb)?)),
            config: config.clone(),
        })
    }

    /// As [`Self::new`] by candle's operations on any device, which is slower on the CPU.
    ///
    /// # Errors
    /// As for [`Self::new`].
    pub fn gathered(config: &ModelConfig, vb: &VarBuilder) -> Result<Self> {
        Ok(Self {
            kind: Kind::Gathered(Box::new(VisionTransformer::new(config, vb)?)),
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
        match &mut self.kind {
            Kind::Packed(model) => model.set_thresholds(thresholds),
            Kind::Gathered(model) => model.set_thresholds(thresholds),
        }
    }

    /// Forces a strategy; without, it is [`Strategy::Auto`]. Only the CPU has a choice.
    pub fn set_strategy(&mut self, strategy: Strategy) {
        if let Kind::Packed(model) = &mut self.kind {
            model.set_strategy(strategy);
        }
    }

    /// Returns the logits, `(B, K)`, of the plain model; decision networks are not run.
    ///
    /// # Shapes
    /// `xs`: `(B, in_chans, height, width)`, f32 on the model's device.
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
    /// As for [`Self::forward_dense`], or if `policy` is of other sizes or
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
            if !(allowed(decisions.gates_tokens(block), tokens)
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
        if (c, h, w) != (self.config.in_chans, height, width) {
            return Err(Error::Config(format!(
                "images: expected shape (B, {}, {height}, {width}), found {:?}",
                self.config.in_chans,
                xs.dims()
            )));
        }
        workspace.policy.keep_all(&self.config.geometry(), b);
        match &self.kind {
            Kind::Packed(_) if !xs.device().is_cpu() => Err(Error::Config(format!(
                "images: expected the CPU, where the model is, found {:?}",
                xs.device().location()
            ))),
            Kind::Packed(model) => {
                model.run(xs, decide, &mut workspace.policy, &mut workspace.rooms)
            }
            Kind::Gathered(model) => run_gathered(model, xs, decide, workspace),
        }
    }
}

fn run_gathered(
    model: &VisionTransformer,
    xs: &Tensor,
    decide: Decide,
    workspace: &mut Workspace,
) -> Result<Tensor> {
    let b = xs.dim(0)?;
    let given = match decide {
        Decide::Nothing => {
            workspace.gathered_macs += b as u64 * model.config().geometry().dense_macs();
            return Ok(model.forward(xs, Capture::default())?.logits);
        }
        Decide::Networks => None,
        Decide::Given(policy) => Some(policy),
    };
    let mut state = Gathered {
        given,
        policy: &mut workspace.policy,
        unknown: vec![false; b],
        macs: 0,
    };
    let logits = model.forward_gathered(xs, &mut state)?;
    workspace.gathered_macs += state.macs;
    Ok(logits)
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
        let prepared = checkpoint.prepared(&Device::Cpu).unwrap();
        (checkpoint, prepared)
    }

    #[test]
    fn logits_are_those_of_the_plain_forward_for_any_batch() {
        for preset in [
            "nano_patch4_28",
            "nano_patch7_28",
            "nano_wide_patch7_28",
            "nano_conv_patch4_28",
        ] {
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
    fn images_of_another_size_are_refused() {
        let (_, prepared) = prepared("nano_patch7_28");
        let images = Tensor::zeros((1, 1, 28, 14), candle_core::DType::F32, &Device::Cpu).unwrap();
        let error = prepared.forward_dense(&images, &mut Workspace::default());
        assert!(error.unwrap_err().to_string().contains("expected shape"));
    }
}
