//! The budgets of an elastic model's images, from their class tokens behind the first block.

use adavit_decision::{AllocatorConfig, budget_features};
use adavit_kernels::{Rows, SmallLinear};
use candle_core::Result;
use candle_nn::VarBuilder;

use super::buffers::Buffers;
use crate::config::ModelConfig;

/// What is read behind the first block, and what chooses by it.
#[derive(Debug)]
pub(super) struct PreparedAllocator {
    embed_dim: usize,
    /// The map to the predicted losses, if the model has one.
    chooser: Option<Chooser>,
}

#[derive(Debug)]
struct Chooser {
    config: AllocatorConfig,
    map: SmallLinear,
}

/// Buffers of an allocator.
#[derive(Debug, Default)]
pub(super) struct AllocationRoom {
    /// The price of a call that allocates.
    pub(super) price: Option<f64>,
    /// `(B, C)`, of all images of the forward so far.
    pub(super) class_tokens: Vec<f32>,
    predicted: Vec<f32>,
}

impl PreparedAllocator {
    /// Loads `weight` and `bias`; none for a model that takes no budget.
    pub(super) fn new(config: &ModelConfig, vb: &VarBuilder) -> Result<Option<Self>> {
        let elastic = config.decisions.as_ref();
        let Some(decisions) = elastic.filter(|own| own.budget_input.is_some()) else {
            return Ok(None);
        };
        let chooser = decisions.allocator.as_ref().map(|own| -> Result<Chooser> {
            let knots = own.knots.len();
            let weight = vb.get((knots, config.embed_dim), "weight")?;
            let bias = vb.get(knots, "bias")?;
            Ok(Chooser {
                config: own.clone(),
                map: SmallLinear::new(&weight, Some(&bias))?,
            })
        });
        Ok(Some(Self {
            embed_dim: config.embed_dim,
            chooser: chooser.transpose()?,
        }))
    }

    /// Keeps the class tokens, and gives each image its budget in a call that allocates. The map runs
    /// in other calls too, and counts.
    pub(super) fn allocate(&self, buffers: &mut Buffers, room: &mut AllocationRoom) {
        let c = self.embed_dim;
        for row in &buffers.class_rows {
            let token = &buffers.xs[row * c..][..c];
            room.class_tokens.extend_from_slice(token);
        }
        let Some(Chooser { config, map }) = &self.chooser else {
            return;
        };
        let knots = map.n_out();
        room.predicted.resize(buffers.class_rows.len() * knots, 0.0);
        let rows = Rows::Some(&buffers.class_rows);
        map.write(&buffers.xs, &mut room.predicted, rows, &mut buffers.work);
        let Some(price) = room.price else {
            return;
        };
        buffers.budget.clear();
        for predicted in room.predicted.chunks_exact(knots) {
            let knot = config.knots[config.choose(predicted, price)];
            let features = budget_features(knot.asked).map(|x| x as f32);
            buffers.budget.extend(features);
        }
    }
}
