//! The settings of one stage of training.

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::optim::adamw::AdamWConfig;
use crate::ranges::Ranges;

/// How long a stage is, and how its optimizer works: the tables `dense` and `adaptive`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageConfig {
    /// Passes over the training images.
    pub epochs: u64,
    /// Epochs of linear warm-up of the learning rate.
    pub warmup_epochs: f64,
    /// The learning rate's factor at the end of the cosine, in [0, 1].
    pub min_lr_factor: f64,
    /// Share of the target that is spread over all classes, in [0, 1].
    pub label_smoothing: f64,
    /// Decay of the moving average of the weights, in [0, 1]; the average is what is evaluated. 0 for
    /// no average.
    pub ema_decay: f64,
    /// Stochastic depth: the rate, in [0, 1), at which the last block's attention and MLP are each left
    /// out for an image; see [`DropoutRates`](adavit_model::DropoutRates).
    pub drop_path: f64,
    /// The rate, in [0, 1), at which outputs of T2T-ViT's token module are left out; see
    /// [`DropoutRates`](adavit_model::DropoutRates). 0 for other models.
    pub token_dropout: f64,
    /// Whether only the head and the decision networks learn, and all else stays as it is.
    pub freeze: bool,
    /// How many batches make one optimizer step, by the mean of their gradients.
    pub accum_steps: usize,
    /// AdamW.
    pub optimizer: AdamWConfig,
}

impl StageConfig {
    /// Returns the default settings of a stage with this length, and with these learning rates of the
    /// backbone and of the decision networks.
    pub(crate) fn of(epochs: u64, lr: f64, decision_lr: f64) -> Self {
        Self {
            epochs,
            warmup_epochs: 1.0,
            min_lr_factor: 0.01,
            label_smoothing: 0.1,
            ema_decay: 0.99,
            drop_path: 0.0,
            token_dropout: 0.0,
            freeze: false,
            accum_steps: 1,
            optimizer: AdamWConfig {
                lr,
                decision_lr,
                max_grad_norm: 1.0,
                ..AdamWConfig::default()
            },
        }
    }

    /// Checks the settings, which are those of the table `table`.
    pub(crate) fn validate(&self, table: &str) -> Result<()> {
        self.optimizer.validate_in(&format!("{table}.optimizer"))?;
        let ranges = Ranges::of(table);
        ranges.ratios([
            ("min_lr_factor", self.min_lr_factor),
            ("label_smoothing", self.label_smoothing),
            ("ema_decay", self.ema_decay),
        ])?;
        ranges.weights([("warmup_epochs", self.warmup_epochs)])?;
        ranges.rates([
            ("drop_path", self.drop_path),
            ("token_dropout", self.token_dropout),
        ])
    }
}
