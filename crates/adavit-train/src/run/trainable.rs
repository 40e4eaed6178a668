//! A model whose weights learn.

use std::collections::{BTreeMap, HashMap};

use adavit_model::{Checkpoint, Tensors, VisionTransformer};
use candle_core::{DType, Device, Var};
use candle_nn::VarBuilder;

use crate::error::Result;
use crate::optim::parameters::Parameters;

/// Returns the model of `start` with variables as weights, and these variables.
pub fn trainable(start: &Checkpoint, device: &Device) -> Result<(VisionTransformer, Parameters)> {
    let all = Trainable::new(start, device, |_| true)?;
    Ok((all.model, all.parameters))
}

/// A model with variables for the weights that learn.
pub(super) struct Trainable {
    pub(super) model: VisionTransformer,
    pub(super) parameters: Parameters,
    /// Its other weights: plain tensors, which get no gradient.
    pub(super) frozen: Tensors,
}

impl Trainable {
    /// Returns the model of `start`, of which the tensors that `learns` names learn.
    pub(super) fn new(
        start: &Checkpoint,
        device: &Device,
        learns: fn(&str) -> bool,
    ) -> Result<Self> {
        let (mut vars, mut frozen) = (BTreeMap::new(), Tensors::new());
        let mut tensors = HashMap::new();
        for (name, tensor) in &start.tensors {
            let tensor = tensor.to_device(device)?;
            let weight = if learns(name) {
                let var = Var::from_tensor(&tensor)?;
                vars.insert(name.clone(), var.clone());
                var.into_inner()
            } else {
                frozen.insert(name.clone(), tensor.clone());
                tensor
            };
            tensors.insert(name.clone(), weight);
        }
        let vb = VarBuilder::from_tensors(tensors, DType::F32, device);
        Ok(Self {
            model: VisionTransformer::new(&start.config, &vb)?,
            parameters: Parameters::from_vars(vars),
            frozen,
        })
    }
}
