//! The dense model whose outputs the adaptive one is distilled from.

use adavit_model::{
    Capture, Checkpoint, Output, PreparedTransformer, VisionTransformer, Workspace,
};
use candle_core::{Device, Tensor};

use crate::config::distillation::Distillation;
use crate::error::Result;

/// A dense model that is not trained, on the fastest path that gives what the losses compare.
#[derive(Debug)]
pub(crate) enum Teacher {
    /// Nothing is distilled.
    Absent,
    /// Logits alone, on packed weights.
    Prepared {
        model: Box<PreparedTransformer>,
        workspace: Workspace,
    },
    /// Logits, and what the losses compare inside the blocks.
    Captured {
        model: Box<VisionTransformer>,
        capture: Capture,
    },
}

impl Teacher {
    pub(crate) fn new(dense: &Checkpoint, by: &Distillation, device: &Device) -> Result<Self> {
        let capture = Capture {
            hidden: false,
            class_hidden: by.hidden > 0.0,
            class_attention: by.attention > 0.0,
        };
        let inside = capture != Capture::default();
        Ok(if by.logits == 0.0 && !inside {
            Self::Absent
        } else if device.is_cpu() && !inside {
            Self::Prepared {
                model: Box::new(dense.prepared(device)?),
                workspace: Workspace::default(),
            }
        } else {
            Self::Captured {
                model: Box::new(dense.model(device)?),
                capture,
            }
        })
    }

    /// What the student captures, so that the two can be compared.
    pub(crate) fn capture(&self) -> Capture {
        match self {
            Self::Absent | Self::Prepared { .. } => Capture::default(),
            Self::Captured { capture, .. } => *capture,
        }
    }

    /// The output on `images`; none if nothing is distilled.
    pub(crate) fn forward(&mut self, images: &Tensor) -> Result<Option<Output>> {
        Ok(match self {
            Self::Absent => None,
            Self::Prepared { model, workspace } => {
                let logits = model.forward_dense(images, workspace)?;
                Some(Output::of_logits(logits))
            }
            Self::Captured { model, capture } => Some(model.forward(images, *capture)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use adavit_model::{ModelConfig, initial_tensors};

    use super::*;

    #[test]
    fn logits_do_not_depend_on_what_else_is_distilled() {
        let config = ModelConfig::preset("nano_conv_patch4_28").unwrap();
        let dense = Checkpoint {
            tensors: initial_tensors(&config, 1, 0.0).unwrap(),
            config,
        };
        let pixels = (0..5 * 28 * 28).map(|i| (i as f32 * 0.37).sin()).collect();
        let images = Tensor::from_vec(pixels, (5, 1, 28, 28), &Device::Cpu).unwrap();
        let output = |logits, attention| {
            let by = Distillation {
                logits,
                attention,
                ..Distillation::default()
            };
            let mut teacher = Teacher::new(&dense, &by, &Device::Cpu).unwrap();
            teacher.forward(&images).unwrap()
        };
        assert!(output(0.0, 0.0).is_none());
        let prepared = output(0.5, 0.0).unwrap();
        let model = output(0.5, 1.0).unwrap();
        assert!(prepared.class_attention.is_empty());
        assert_eq!(model.class_attention.len(), dense.config.depth);
        let difference = (prepared.logits - model.logits).unwrap().abs().unwrap();
        let largest = difference.flatten_all().unwrap().max(0).unwrap();
        // Both round, in another order.
        assert!(largest.to_scalar::<f32>().unwrap() <= 2e-5);
    }
}
