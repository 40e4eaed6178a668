//! Every setting of a training run, and how they are read from TOML.

use std::path::PathBuf;

use adavit_data::Augment;
use adavit_decision::{AxisLoss, DecisionConfig, Geometry, Thresholds, UsageLoss};
use adavit_model::ModelConfig;
use serde::{Deserialize, Serialize};
use toml::Table;

use crate::config::class_weights::ClassWeights;
use crate::config::distillation::Distillation;
use crate::config::elastic::Elastic;
use crate::config::fine_tune::FineTune;
use crate::config::gates::Gates;
use crate::config::method::Method;
use crate::config::model::ModelOptions;
use crate::config::stage_config::StageConfig;
use crate::config::tables::{merge, without_places};
use crate::config::usage_weights::{Targets, UsageWeights};
use crate::config::{unknown, wrong_values};
use crate::error::{Error, Result};

/// Everything that a run depends on; keys left out of a file have the values of [`Default`].
///
/// ```
/// # use adavit_train::TrainConfig;
/// let config = TrainConfig::from_toml("budget = 0.6\n[adaptive]\nepochs = 30\n")?;
/// config.validate()?;
/// assert_eq!((config.budget, config.adaptive.epochs), (0.6, 30));
/// # Ok::<(), adavit_train::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// The backbone's preset.
    pub preset: String,
    /// A data set's name, or a path: see [`adavit_data::load_splits`] and [`adavit_data::open`].
    pub data: String,
    /// A file that gives each folder or label of `data` its class.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class_map: Option<PathBuf>,
    /// Share of the pictures that is tested on, in (0, 1), where `data` has one part only.
    #[serde(default = "val_split", skip_serializing_if = "is_val_split")]
    pub val_split: f64,
    /// The most bytes of decoded pictures that stay in memory.
    #[serde(default = "cache_bytes", skip_serializing_if = "is_cache_bytes")]
    pub cache_bytes: u64,
    /// Whether JPEGs are decoded at the smallest part of their size that is enough: faster, with other
    /// values.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub fast_decode: bool,
    /// The folder of a named data set's files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data_dir: Option<PathBuf>,
    /// The run folder. Results do not depend on it, so it is not written into `config.toml`.
    #[serde(default, skip_serializing)]
    pub out: Option<PathBuf>,
    /// `cpu`, `cuda`, `cuda:N` or `metal`.
    pub device: String,
    /// Threads of every pool; all processors if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threads: Option<usize>,
    /// The seed of everything that is random.
    pub seed: u64,
    /// Mean `exact` MACs of an image at inference over those of the dense model, in (0, 1].
    pub budget: f64,
    /// Per-axis targets as in the paper, in place of the budget.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub targets: Option<Targets>,
    /// A model for any budget, which `budget` is then the default of; one for `budget` if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub elastic: Option<Elastic>,
    /// Images per batch; a step is of one batch, or of `accum_steps`.
    pub batch_size: usize,
    /// How much the images of each class count in the cross entropy with the labels; all the same, if
    /// absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class_weights: Option<ClassWeights>,
    /// Images per forward of an evaluation.
    pub eval_batch_size: usize,
    /// Threads that read, decode and vary training images ahead of the steps. Batches do not depend on
    /// it. If absent: none for images in memory, one for each of `threads` for pictures and scenes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workers: Option<usize>,
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
    /// A stage ends after this many epochs without a better checkpoint; never, if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patience: Option<u64>,
    /// Number of checkpoints that each stage keeps besides the best one: those of the epochs that did
    /// best on the held-out images.
    pub keep: usize,
    /// Whether to write event files for TensorBoard.
    pub tensorboard: bool,
    /// How the adaptive stage saves compute. Only files that a sweep wrote set it.
    #[serde(default, skip_serializing_if = "Method::is_learned")]
    pub method: Method,
    /// Changes to the preset.
    pub model: ModelOptions,
    /// The decisions of the adaptive model.
    pub decisions: DecisionConfig,
    /// How training images are varied.
    pub augment: Augment,
    /// A dense checkpoint to start from.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dense_checkpoint: Option<PathBuf>,
    /// What the dense stage does with that checkpoint.
    #[serde(default, skip_serializing_if = "FineTune::is_off")]
    pub fine_tune: FineTune,
    /// The first stage: the dense model.
    pub dense: StageConfig,
    /// The second stage: the adaptive model, which starts from the dense one.
    pub adaptive: StageConfig,
    /// How decision networks are trained.
    pub gates: Gates,
    /// The budget losses.
    pub usage: UsageWeights,
    /// What the adaptive model learns from the dense one.
    pub distillation: Distillation,
}

fn val_split() -> f64 {
    0.2
}

fn cache_bytes() -> u64 {
    1 << 30
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_val_split(value: &f64) -> bool {
    *value == val_split()
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_cache_bytes(value: &u64) -> bool {
    *value == cache_bytes()
}

impl Default for TrainConfig {
    /// The default run: a small model on the images that ship with the repository.
    fn default() -> Self {
        Self {
            preset: "nano_patch7_28".into(),
            data: "fashion-mnist-subset".into(),
            class_map: None,
            val_split: val_split(),
            cache_bytes: cache_bytes(),
            fast_decode: false,
            data_dir: None,
            out: None,
            device: "cpu".into(),
            threads: None,
            seed: 0,
            budget: 0.5,
            targets: None,
            elastic: None,
            batch_size: 64,
            class_weights: None,
            eval_batch_size: 250,
            workers: None,
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
                ..Augment::default()
            },
            dense_checkpoint: None,
            fine_tune: FineTune::Off,
            dense: StageConfig::of(50, 2e-3, 2e-3),
            // Decision networks learn fast: their choices have to become sharp, or the model
            // learns to do without any of its parts, as under dropout.
            adaptive: StageConfig::of(20, 1e-3, 1e-2),
            gates: Gates::default(),
            usage: UsageWeights::default(),
            distillation: Distillation::default(),
        }
    }
}

impl TrainConfig {
    /// Reads a TOML file's text over the defaults.
    ///
    /// # Errors
    /// [`Error::Setting`] if the text is not TOML, a key is unknown, or a value has another type.
    pub fn from_toml(text: &str) -> Result<Self> {
        Self::from_toml_and(text, [])
    }

    /// As [`Self::from_toml`], with more tables of settings, each over those before it.
    ///
    /// # Errors
    /// As for [`Self::from_toml`].
    pub fn from_toml_and(text: &str, more: impl IntoIterator<Item = Table>) -> Result<Self> {
        let mut file: Table = text
            .parse()
            .map_err(|error: toml::de::Error| Error::Setting(one_line(&error.to_string())))?;
        for table in more {
            merge(&mut file, table);
        }
        let defaults = Table::try_from(Self::default())
            .map_err(|error| Error::encode("config.toml", &error))?;
        let mut table = defaults.clone();
        merge(&mut table, file);
        table.try_into().map_err(|error: toml::de::Error| {
            let message = one_line(&error.to_string());
            let explained = unknown::explained(&message, &defaults);
            let explained = explained.or_else(|| wrong_values::explained(&message));
            Error::Setting(explained.unwrap_or(message))
        })
    }

    /// Writes every setting as TOML.
    ///
    /// # Errors
    /// [`Error::Encode`] if TOML cannot hold a value.
    pub fn to_toml(&self) -> Result<String> {
        toml::to_string(self).map_err(|error| Error::encode("config.toml", &error))
    }

    /// Returns the settings that decide what is learnt and found, as TOML.
    ///
    /// # Errors
    /// [`Error::Encode`] if TOML cannot hold a value.
    pub fn learnt(&self) -> Result<Table> {
        let table = Table::try_from(self).map_err(|error| Error::encode("config.toml", &error))?;
        Ok(without_places(table))
    }

    /// Returns the dense model: the preset with the changes of `model`.
    ///
    /// # Errors
    /// If there is no such preset.
    pub fn dense_model(&self) -> Result<ModelConfig> {
        let mut model = ModelConfig::preset(&self.preset)?;
        // Both come from the training data, not from the pictures that the preset is known for.
        model.normalization = None;
        model.preprocessing = None;
        self.model.change(&mut model)?;
        Ok(model)
    }

    /// Returns the adaptive model: the dense one with `decisions`.
    ///
    /// # Errors
    /// If there is no such preset.
    pub fn adaptive_model(&self) -> Result<ModelConfig> {
        Ok(self
            .dense_model()?
            .with_decisions(self.adaptive_decisions()))
    }

    /// Returns the decisions of the adaptive model: those of an elastic one take a budget.
    pub fn adaptive_decisions(&self) -> DecisionConfig {
        DecisionConfig {
            budget_input: self.elastic.map(|_| 1.0),
            ..self.decisions.clone()
        }
    }

    /// Returns the usage losses. Their targets are `targets` if set; otherwise one usage for all axes
    /// that meets the budget.
    pub fn usage_loss(&self, geometry: &Geometry) -> UsageLoss {
        let targets = self.targets.unwrap_or_else(|| {
            let usage = geometry.usage_for_budget(&self.adaptive_decisions(), self.budget);
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

/// A TOML error on one line: where, then what.
fn one_line(message: &str) -> String {
    let lines = message.lines().map(str::trim);
    let text =
        lines.filter(|line| !line.is_empty() && !line.starts_with('|') && !line.starts_with('^'));
    text.collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use adavit_gumbel::Temperature;

    use super::*;

    #[test]
    fn a_model_has_the_preprocessing_of_its_settings_alone() {
        let mut config = TrainConfig {
            preset: "deit_tiny_patch16_224".into(),
            ..TrainConfig::default()
        };
        assert_eq!(config.dense_model().unwrap().preprocessing, None);
        let whole = adavit_data::Preprocessing {
            crop_pct: 1.0,
            ..adavit_data::Preprocessing::default()
        };
        config.model.preprocessing = Some(whole.clone());
        assert_eq!(config.dense_model().unwrap().preprocessing, Some(whole));
    }

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
