//! The settings of a training run: one TOML file reproduces one run.

use std::path::PathBuf;

use adavit_decision::{AxisLoss, DecisionConfig, Deviation, Geometry, Thresholds, UsageLoss};
use adavit_gumbel::Temperature;
use adavit_model::ModelConfig;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::config::method::Method;
use crate::config::model::ModelOptions;
use crate::error::{Error, Result};
use crate::optim::adamw::AdamWConfig;
use crate::optim::schedule::Ramp;
use adavit_data::Augment;

/// Everything that a run depends on; keys left out of a file have the values of [`Default`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// The backbone's preset.
    pub preset: String,
    /// A data set's name or a folder of IDX files; see [`adavit_data::load`].
    pub data: String,
    /// Where a named data set's files are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_dir: Option<PathBuf>,
    /// The run folder; not part of what a run depends on, so not written into its `config.toml`.
    #[serde(default, skip_serializing)]
    pub out: Option<PathBuf>,
    /// `cpu`, `cuda`, `cuda:N` or `metal`.
    pub device: String,
    /// Threads of every pool; all processors if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<usize>,
    /// Of everything that is random.
    pub seed: u64,
    /// Mean `exact` MACs of an image at inference over those of the plain model, in (0, 1].
    pub budget: f64,
    /// Per-axis targets as in the paper, in place of the budget.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub targets: Option<Targets>,
    /// Images per step.
    pub batch_size: usize,
    /// Images per forward of an evaluation.
    pub eval_batch_size: usize,
    /// Share of the training images that is held out, in (0, 1): it chooses `best`.
    pub held_out: f64,
    /// At most this many optimizer steps in each stage; within an epoch this is a trial run, which
    /// measures one random policy of each kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_steps: Option<u64>,
    /// Seconds between snapshots; at most so much work is lost.
    pub snapshot_seconds: f64,
    /// How many random policies the learned one is compared with; one where `max_steps` ends the
    /// adaptive stage within its first epoch.
    pub random_policies: usize,
    /// A stage ends after so many epochs without a better checkpoint; never, if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patience: Option<u64>,
    /// How many epochs' checkpoints are kept in each stage, those that did best on the held-out
    /// images, besides the best one.
    pub keep: usize,
    /// Whether event files for TensorBoard are written.
    pub tensorboard: bool,
    /// How the second stage saves compute. A file has it only where a sweep wrote it.
    #[serde(default, skip_serializing_if = "Method::is_learned")]
    pub method: Method,
    /// Changes to the preset.
    pub model: ModelOptions,
    /// The decisions of the adaptive model.
    pub decisions: DecisionConfig,
    /// How training images are varied.
    pub augment: Augment,
    /// A plain checkpoint to start the second stage from, in place of the first stage.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dense_checkpoint: Option<PathBuf>,
    /// The first stage: the plain model.
    pub dense: StageConfig,
    /// The second stage: the adaptive model, starting from the plain one.
    pub adaptive: StageConfig,
    /// How decision networks are trained.
    pub gates: Gates,
    /// The budget losses.
    pub usage: UsageWeights,
    /// What the adaptive model learns from the plain one.
    pub distillation: Distillation,
}

/// Usage targets of the paper, in [0, 1].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Targets {
    /// Of tokens.
    pub tokens: f64,
    /// Of heads.
    pub heads: f64,
    /// Of sub-layers.
    pub blocks: f64,
}

/// How long a stage is, and how its optimizer works.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageConfig {
    /// Passes over the training images.
    pub epochs: u64,
    /// Epochs of linear warm-up of the learning rate.
    pub warmup_epochs: f64,
    /// The learning rate's factor at the end of the cosine.
    pub min_lr_factor: f64,
    /// Share of the target that is spread over all classes.
    pub label_smoothing: f64,
    /// Decay of the moving average of the weights, which is what is evaluated; 0 for none.
    pub ema_decay: f64,
    /// AdamW.
    pub optimizer: AdamWConfig,
}

/// How decision networks are trained.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gates {
    /// Temperature over the stage.
    pub temperature: Temperature,
    /// The logit that every gate starts from; above 0 it starts by keeping.
    pub keep_logit: f64,
    /// Over which part of the stage the noise goes away; with both ends at 1 it stays. Without noise
    /// a gate in training is the gate at inference.
    pub noise_end: Ramp,
}

/// Weights and form of the budget losses; their targets come from the budget where [`Targets`] are
/// not given.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UsageWeights {
    /// When all weights rise from 0 to their values.
    pub ramp: Ramp,
    /// Weight of the token usage.
    pub tokens: f64,
    /// Weight of the head usage.
    pub heads: f64,
    /// Weight of the sub-layer usage.
    pub blocks: f64,
    /// Weight of the multiply-adds over the plain model's, whose target comes down to the budget over
    /// the ramp; not where targets are given per axis.
    pub macs: f64,
    /// How a deviation of the multiply-adds counts.
    pub macs_deviation: Deviation,
    /// How a deviation of the token usage counts.
    pub tokens_deviation: Deviation,
    /// How a deviation of the head usage counts.
    pub heads_deviation: Deviation,
    /// How a deviation of the sub-layer usage counts.
    pub blocks_deviation: Deviation,
    /// Weight of |usage - target| per block and head.
    pub diverse: f64,
    /// Weight of minus the mean entropy of head and sub-layer gates.
    pub entropy: f64,
    /// The usage below which a block, head or image is punished.
    pub minimum: f64,
    /// Weight of that.
    pub minimum_weight: f64,
}

/// Weights of the three published distillation terms.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Distillation {
    /// Weight of the soft targets, in [0, 1]; the labels get the rest.
    pub logits: f64,
    /// Temperature of the soft targets.
    pub temperature: f64,
    /// Weight of the class token's hidden states.
    pub hidden: f64,
    /// Weight of the class token's attention rows.
    pub attention: f64,
}

impl Default for TrainConfig {
    /// The default run: a small model on the images that ship with the repository.
    fn default() -> Self {
        let stage = |epochs, lr, decision_lr| StageConfig {
            epochs,
            warmup_epochs: 1.0,
            min_lr_factor: 0.01,
            label_smoothing: 0.1,
            ema_decay: 0.99,
            optimizer: AdamWConfig {
                lr,
                decision_lr,
                max_grad_norm: 1.0,
                ..AdamWConfig::default()
            },
        };
        Self {
            preset: "nano_patch7_28".into(),
            data: "fashion-mnist-subset".into(),
            data_dir: None,
            out: None,
            device: "cpu".into(),
            threads: None,
            seed: 0,
            budget: 0.5,
            targets: None,
            batch_size: 64,
            eval_batch_size: 250,
            held_out: 0.1,
            max_steps: None,
            snapshot_seconds: 20.0,
            random_policies: 5,
            patience: None,
            keep: 0,
            tensorboard: false,
            method: Method::Learned,
            model: ModelOptions::default(),
            decisions: DecisionConfig {
                // At 0.5 the boundary of training is that of inference at every temperature.
                thresholds: Thresholds {
                    tokens: 0.5,
                    heads: 0.5,
                    blocks: 0.5,
                },
                ..DecisionConfig::default()
            },
            augment: Augment {
                crop_padding: 2,
                flip: true,
                random_erasing: 0.0,
            },
            dense_checkpoint: None,
            dense: stage(50, 2e-3, 2e-3),
            // Decision networks learn fast: their choices have to become sharp, or the model
            // learns to do without any of its parts, as under dropout.
            adaptive: stage(20, 1e-3, 1e-2),
            gates: Gates::default(),
            usage: UsageWeights::default(),
            distillation: Distillation::default(),
        }
    }
}

impl Default for Gates {
    fn default() -> Self {
        Self {
            // The published temperature: the gradient reaches gates that are sure already.
            temperature: Temperature::Constant { tau: 5.0 },
            keep_logit: 3.0,
            noise_end: Ramp {
                start: 1.0,
                end: 1.0,
            },
        }
    }
}

impl Default for UsageWeights {
    /// The paper's form, every deviation squared (eq. 8), with its weights.
    fn default() -> Self {
        Self {
            ramp: Ramp {
                start: 0.0,
                end: 0.3,
            },
            tokens: 2.0,
            heads: 2.0,
            blocks: 2.0,
            macs: 0.0,
            macs_deviation: Deviation::Squared,
            tokens_deviation: Deviation::Squared,
            heads_deviation: Deviation::Squared,
            blocks_deviation: Deviation::Squared,
            diverse: 0.0,
            entropy: 0.0,
            minimum: 0.0,
            minimum_weight: 0.0,
        }
    }
}

impl Default for Distillation {
    /// Half soft targets, half labels.
    fn default() -> Self {
        Self {
            logits: 0.5,
            temperature: 2.0,
            hidden: 0.0,
            attention: 0.0,
        }
    }
}

impl TrainConfig {
    /// Reads a TOML file's text over the defaults; unknown keys are refused.
    pub fn from_toml(text: &str) -> Result<Self> {
        let input = |error: &str| Error::Input(one_line(error));
        let file: Table = text
            .parse()
            .map_err(|error: toml::de::Error| input(&error.to_string()))?;
        let mut table =
            Table::try_from(Self::default()).map_err(|error| input(&error.to_string()))?;
        merge(&mut table, file);
        table.try_into().map_err(|error| input(&error.to_string()))
    }

    /// Writes every setting as TOML.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self).map_err(|error| Error::Input(format!("config: {error}")))
    }

    /// The settings that decide what is learnt and found.
    pub fn learnt(&self) -> Result<Table> {
        let table = Table::try_from(self);
        table
            .map(without_places)
            .map_err(|error| Error::Input(format!("config: {}", one_line(&error.to_string()))))
    }

    /// The plain model.
    pub fn dense_model(&self) -> Result<ModelConfig> {
        let mut model = ModelConfig::preset(&self.preset)?;
        self.model.change(&mut model);
        // Those of the data that it is trained on, not of the pictures that the preset is known for.
        model.normalization = None;
        model.preprocessing = None;
        Ok(model)
    }

    /// The adaptive model.
    pub fn adaptive_model(&self) -> Result<ModelConfig> {
        Ok(self.dense_model()?.with_decisions(self.decisions.clone()))
    }

    /// The budget losses, with the targets given or those that meet the budget if every axis is
    /// used alike.
    pub fn usage_loss(&self, geometry: &Geometry) -> UsageLoss {
        let targets = self.targets.unwrap_or_else(|| {
            let usage = geometry.usage_for_budget(&self.decisions, self.budget);
            Targets {
                tokens: usage,
                heads: usage,
                blocks: usage,
            }
        });
        let weights = &self.usage;
        let axis = |target, weight, deviation| AxisLoss {
            diverse_weight: weights.diverse,
            entropy_weight: weights.entropy,
            minimum: weights.minimum,
            minimum_weight: weights.minimum_weight,
            ..AxisLoss::new(target, weight, deviation)
        };
        UsageLoss {
            tokens: axis(targets.tokens, weights.tokens, weights.tokens_deviation),
            heads: axis(targets.heads, weights.heads, weights.heads_deviation),
            blocks: axis(targets.blocks, weights.blocks, weights.blocks_deviation),
        }
    }
}

/// Keys that say where things are and run, and what is kept of a run: what is learnt and found is
/// the same with others.
const PLACES: [&str; 7] = [
    "data_dir",
    "dense_checkpoint",
    "device",
    "keep",
    "snapshot_seconds",
    "tensorboard",
    "threads",
];

/// The settings without those that change nothing of what is learnt.
pub fn without_places(mut settings: Table) -> Table {
    settings.retain(|key, _| !PLACES.contains(&key));
    settings
}

/// Lays `over` on `base`, table by table. A table that names its `schedule` replaces the one
/// below, whose other keys belong to another schedule.
pub fn merge(base: &mut Table, over: Table) {
    for (key, value) in over {
        match (base.get_mut(&key), value) {
            (Some(Value::Table(below)), Value::Table(above)) if !above.contains_key("schedule") => {
                merge(below, above);
            }
            (_, value) => {
                base.insert(key, value);
            }
        }
    }
}

/// A TOML error on one line: where, then what.
fn one_line(message: &str) -> String {
    let lines = message.lines().map(str::trim);
    let text =
        lines.filter(|line| !line.is_empty() && !line.starts_with('|') && !line.starts_with('^'));
    text.collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_resolved_file_reproduces_the_configuration() {
        let config = TrainConfig {
            seed: 7,
            targets: Some(Targets {
                tokens: 0.5,
                heads: 0.6,
                blocks: 0.7,
            }),
            ..TrainConfig::default()
        };
        let text = config.to_toml().unwrap();
        assert_eq!(TrainConfig::from_toml(&text).unwrap(), config);
    }

    #[test]
    fn keys_left_out_keep_the_defaults_of_their_own_stage() {
        let config = TrainConfig::from_toml("[adaptive]\nepochs = 3\n").unwrap();
        let default = TrainConfig::default();
        assert_eq!(config.adaptive.epochs, 3);
        assert_eq!(config.adaptive.optimizer, default.adaptive.optimizer);
        assert_eq!(config.dense, default.dense);
    }

    #[test]
    fn unknown_keys_and_broken_files_are_refused_on_one_line() {
        for text in ["budgte = 0.5", "[dense]\nepoch = 3", "seed = ", "seed = -1"] {
            let error = TrainConfig::from_toml(text).unwrap_err();
            assert!(error.is_input_error());
            assert!(!error.to_string().contains('\n'), "{error}");
        }
        let error = TrainConfig::from_toml("budgte = 0.5").unwrap_err();
        assert!(error.to_string().contains("budgte"), "{error}");
    }

    #[test]
    fn another_schedule_replaces_the_default_one() {
        let text = "[gates]\ntemperature = { schedule = \"cosine\", start = 5.0, end = 1.0 }";
        let config = TrainConfig::from_toml(text).unwrap();
        let cosine = Temperature::Cosine {
            start: 5.0,
            end: 1.0,
        };
        assert_eq!(config.gates.temperature, cosine);
    }
}
