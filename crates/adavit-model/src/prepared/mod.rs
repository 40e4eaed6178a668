//! A model prepared for inference, which computes nothing that a decision turned off.
//!
//! On the CPU weights are packed once, buffers reused, and there is no graph: rows of kept tokens,
//! channels of kept heads and images with an open gate are the parts of each product; what is left
//! out is neither read nor computed. An image's logits have the same bits alone and in any batch,
//! and for any number of threads. On other devices the rows are gathered for candle's operations.

mod allocate;
pub(crate) mod block;
mod buffers;
mod conv_stem;
mod decide;
mod layers;
mod packed;
mod plan;
mod stem;

use adavit_decision::{Allowance, Budgets, DecisionConfig, HardPolicy, Thresholds};
use candle_core::Tensor;
use candle_nn::VarBuilder;

use self::block::Strategy;
use self::decide::PolicySource;
use self::packed::{PackedTransformer, Rooms};
use crate::allowed::budget_features;
use crate::block::gathered::Gathered;
use crate::config::ModelConfig;
use crate::error::{Error, Result};
use crate::output::Capture;
use crate::vit::VisionTransformer;

/// A ViT/DeiT for inference, with decision networks if its configuration has decisions.
///
/// A forward takes `&self`: threads share the model, each with a [`Workspace`] of its own.
#[derive(Debug)]
pub struct PreparedTransformer {
    config: ModelConfig,
    path: ComputePath,
}

#[derive(Debug)]
enum ComputePath {
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
    /// The class tokens of the gathered path, behind the first block.
    gathered_tokens: Vec<f32>,
}

impl Workspace {
    /// Returns the multiply-adds done since the last call.
    pub fn take_macs(&mut self) -> u64 {
        std::mem::take(&mut self.gathered_macs) + self.rooms.take_macs()
    }

    /// Returns the class token of each image behind the first block, `(B, C)`, of the last forward of
    /// an elastic model under decisions; nothing of another.
    pub fn class_tokens(&self) -> Vec<f32> {
        let mut tokens = self.gathered_tokens.clone();
        self.rooms.add_class_tokens(&mut tokens);
        tokens
    }

    /// What the last forward computed of each image.
    pub fn policy(&self) -> &HardPolicy {
        &self.policy
    }
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
            path: ComputePath::Packed(Box::new(PackedTransformer::new(config, vb)?)),
            config: config.clone(),
        })
    }

    /// As [`Self::new`] by candle's operations on any device, which is slower on the CPU.
    ///
    /// # Errors
    /// As for [`Self::new`].
    pub fn gathered(config: &ModelConfig, vb: &VarBuilder) -> Result<Self> {
        Ok(Self {
            path: ComputePath::Gathered(Box::new(VisionTransformer::new(config, vb)?)),
            config: config.clone(),
        })
    }

    /// What the model is made of.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Moves the thresholds of every decision network; a dense model has none to move.
    pub fn set_thresholds(&mut self, thresholds: Thresholds) {
        if let Some(decisions) = &mut self.config.decisions {
            decisions.thresholds = thresholds;
        }
        match &mut self.path {
            ComputePath::Packed(model) => model.set_thresholds(thresholds),
            ComputePath::Gathered(model) => model.set_thresholds(thresholds),
        }
    }

    /// Forces a strategy; without, it is [`Strategy::Auto`]. Only the CPU has a choice.
    pub fn set_strategy(&mut self, strategy: Strategy) {
        if let ComputePath::Packed(model) = &mut self.path {
            model.set_strategy(strategy);
        }
    }

    /// Returns the logits, `(B, K)`, of the dense model; decision networks are not run.
    ///
    /// # Shapes
    /// `xs`: `(B, in_chans, height, width)`, f32 on the model's device.
    ///
    /// # Errors
    /// If `xs` has another shape, dtype or device.
    pub fn forward_dense(&self, xs: &Tensor, workspace: &mut Workspace) -> Result<Tensor> {
        self.run(xs, PolicySource::KeepAll, workspace)
    }

    /// Returns the logits, `(B, K)`, under the model's own decisions: those of
    /// [`crate::VisionTransformer::forward_masked`] at inference, from what they keep alone.
    /// [`Workspace::policy`] reports what that was.
    ///
    /// # Shapes and errors
    /// As for [`Self::forward_dense`].
    pub fn forward_sparse(&self, xs: &Tensor, workspace: &mut Workspace) -> Result<Tensor> {
        self.forward_sparse_within(xs, &Allowance::default(), workspace)
    }

    /// As [`Self::forward_sparse`], with what `allowance` allows each image. A ceiling is one of
    /// counted MACs. [`Strategy::Exact`] executes no more than these; other strategies, and the
    /// padding on other devices than the CPU, may.
    ///
    /// # Errors
    /// As for [`Self::forward_dense`], or if the model cannot keep to the allowance.
    pub fn forward_sparse_within(
        &self,
        xs: &Tensor,
        allowance: &Allowance,
        workspace: &mut Workspace,
    ) -> Result<Tensor> {
        self.config.check_allowance(allowance)?;
        self.config.budgets(allowance, xs.dim(0)?)?;
        self.run(xs, PolicySource::Networks(allowance), workspace)
    }

    /// As [`Self::forward_sparse`] under given decisions. The decision networks run all the same,
    /// and count, so that random policies cost what the model's own would. What the decisions cost
    /// is the caller's affair: no ceiling changes them.
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
        self.run(xs, PolicySource::Given(policy), workspace)
    }

    /// Checks that a policy is of this model and of `b` images.
    fn check_policy(&self, policy: &HardPolicy, b: usize) -> Result<()> {
        let fail = |message: String| Err(Error::Input(format!("policy: {message}")));
        let (depth, n) = (self.config.depth, self.config.num_tokens());
        let num_heads = self.config.num_heads;
        if policy.batch() != b || (b > 0 && policy.depth() != depth) {
            return fail(format!(
                "expected {depth} blocks of {b} images, found {} of {}",
                policy.depth(),
                policy.batch()
            ));
        }
        let none = DecisionConfig::none();
        let decisions = self.config.decisions.as_ref().unwrap_or(&none);
        for (block, image) in (0..depth).flat_map(|l| (0..b).map(move |i| (l, i))) {
            let (tokens, heads) = (policy.tokens(block, image), policy.heads(block, image));
            if tokens.len() != n || heads.len() != num_heads {
                return fail(format!(
                    "expected {n} tokens and {num_heads} heads, found {} and {}",
                    tokens.len(),
                    heads.len()
                ));
            }
            let sublayers = policy.sublayers(block, image);
            let off = |bits: &[bool]| bits.contains(&false);
            if (off(tokens) && !decisions.gates_tokens(block))
                || (off(heads) && decisions.gates_heads(block).is_none())
                || (off(&sublayers) && !decisions.gates_sublayers(block))
            {
                return fail(format!(
                    "image {image} drops in block {block} what the model has no gate for"
                ));
            }
        }
        Ok(())
    }

    fn run(&self, xs: &Tensor, source: PolicySource, workspace: &mut Workspace) -> Result<Tensor> {
        self.config.check_images(xs)?;
        workspace
            .policy
            .keep_all(&self.config.geometry(), xs.dim(0)?);
        workspace.gathered_tokens.clear();
        workspace.rooms.clear_class_tokens();
        match &self.path {
            ComputePath::Packed(_) if !xs.device().is_cpu() => Err(Error::Input(format!(
                "images: expected the CPU, where the model is, found {:?}",
                xs.device().location()
            ))),
            ComputePath::Packed(model) => {
                model.run(xs, source, &mut workspace.policy, &mut workspace.rooms)
            }
            ComputePath::Gathered(model) => run_gathered(model, xs, source, workspace),
        }
    }
}

fn run_gathered(
    model: &VisionTransformer,
    xs: &Tensor,
    source: PolicySource,
    workspace: &mut Workspace,
) -> Result<Tensor> {
    let b = xs.dim(0)?;
    let config = model.config();
    let no_limit = Allowance::default();
    let (given, allowance) = match source {
        PolicySource::KeepAll => {
            workspace.gathered_macs += b as u64 * config.geometry().dense_macs();
            return Ok(model.forward(xs, Capture::default())?.logits);
        }
        PolicySource::Networks(allowance) => (None, allowance),
        PolicySource::Given(policy) => (Some(policy), &no_limit),
    };
    let budgets = config.budgets(allowance, b)?;
    let budget = budgets.as_ref().map(|own| budget_features(own, xs));
    let mut state = Gathered {
        given,
        budget: budget.transpose()?,
        price: budgets.as_ref().and_then(Budgets::price),
        class_tokens: &mut workspace.gathered_tokens,
        ceiling: config.ceiling(allowance, b)?,
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
    use crate::checkpoint::native::Checkpoint;
    use crate::checkpoint::tensors::initial_tensors;
    use crate::output::Capture;

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
    fn logits_are_those_of_the_dense_forward_for_any_batch() {
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
                // The dense forward embeds in another order; both round.
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
