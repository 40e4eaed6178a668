//! A recording: weights, input, and every number that came out, in one safetensors file.

use std::path::{Path, PathBuf};

use adavit_decision::{AxisLoss, DecisionConfig, Deviation, HeadDeactivation, UsageLoss};
use candle_core::Tensor;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::file::SafetensorsFile;
use crate::import::own_names;
use crate::{Error, ModelConfig, PosEmbed, Result, T2tConfig, Tensors, TokensType};

/// The temperature of training recordings that do not tell theirs.
const TAU: f64 = 5.0;

/// A recording of another implementation; `docs/recordings.md` says what is in one.
#[derive(Debug, Clone)]
pub struct Recording {
    path: PathBuf,
    /// The recorded model.
    pub config: ModelConfig,
    /// Of the budget losses, if recorded in training.
    pub usage_loss: Option<UsageLoss>,
    /// The temperature of the gates in training.
    pub tau: f64,
    weights: Tensors,
    gradients: Tensors,
    tensors: Tensors,
}

impl Recording {
    /// Reads a recording.
    ///
    /// # Errors
    /// If the file is damaged or no recording.
    pub fn load(path: &Path) -> Result<Self> {
        let mut file = SafetensorsFile::open(path)?;
        let fail = |message: String| Error::Checkpoint {
            path: path.to_path_buf(),
            message,
        };
        let metadata = file.metadata();
        let Some(config) = metadata.get("config") else {
            return Err(fail(
                "no recording: expected the metadata to hold a config; docs/recordings.md says what \
                 a recording is"
                    .into(),
            ));
        };
        let config: PublishedConfig = json("config", config).map_err(fail)?;
        let usage_loss = metadata.get("loss_config");
        let usage_loss: Option<PublishedLoss> = usage_loss
            .map(|text| json("loss_config", text))
            .transpose()
            .map_err(fail)?;
        let tau = metadata.get("tau").map(|tau| tau.parse());
        let tau = tau
            .transpose()
            .map_err(|error| fail(format!("tau: {error}")))?;
        let config = config.model().map_err(fail)?;
        config
            .validate()
            .map_err(|error| fail(format!("config: {error}")))?;
        let mut recording = Self {
            path: path.to_path_buf(),
            config,
            usage_loss: usage_loss.map(PublishedLoss::usage_loss),
            tau: tau.unwrap_or(TAU),
            weights: Tensors::new(),
            gradients: Tensors::new(),
            tensors: Tensors::new(),
        };
        for (name, tensor) in file.read_all()? {
            if let Some(name) = name.strip_prefix("weights.") {
                recording.weights.insert(name.into(), tensor);
            } else if let Some(name) = name.strip_prefix("grad.") {
                recording.gradients.insert(name.into(), tensor);
            } else {
                recording.tensors.insert(name, tensor);
            }
        }
        // Models of timm and transformers have names of their own, and so have their gradients.
        let mut notes = Vec::new();
        recording.weights = own_names(recording.weights, &mut notes)?.0;
        recording.gradients = own_names(recording.gradients, &mut notes)?.0;
        Ok(recording)
    }

    /// Whether noise, losses and gradients were recorded.
    pub fn is_training(&self) -> bool {
        self.tensors.contains_key("loss")
    }

    /// The recorded images, `(B, in_chans, height, width)`.
    pub fn input(&self) -> Result<&Tensor> {
        self.expect("input")
    }

    /// The recorded tensor of this name, if there is one.
    pub fn tensor(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name)
    }

    pub(super) fn weights(&self) -> Result<&Tensors> {
        if self.weights.is_empty() {
            return Err(self.unfit("no weights recorded: give a checkpoint with them"));
        }
        Ok(&self.weights)
    }

    pub(super) fn gradients(&self) -> &Tensors {
        &self.gradients
    }

    pub(super) fn expect(&self, name: &str) -> Result<&Tensor> {
        let tensor = self.tensors.get(name);
        tensor.ok_or_else(|| self.unfit(&format!("no tensor {name} recorded")))
    }

    /// The recorded noises, in the order of the gate calls; token noise as `(B, N - 1)`.
    pub(super) fn noises(&self) -> candle_core::Result<Vec<Tensor>> {
        (0..)
            .map_while(|n| self.tensors.get(&format!("noise.{n}")))
            .map(|noise| match noise.rank() {
                3 => noise.squeeze(2),
                _ => Ok(noise.clone()),
            })
            .collect()
    }

    /// An error about this recording.
    pub(super) fn unfit(&self, message: &str) -> Error {
        Error::Checkpoint {
            path: self.path.clone(),
            message: message.into(),
        }
    }
}

fn json<T: DeserializeOwned>(key: &str, text: &str) -> Result<T, String> {
    serde_json::from_str(text).map_err(|error| format!("{key} in the metadata: {error}"))
}

/// One number for a square, or height and width.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(untagged)]
enum Size {
    Square(usize),
    Sides(usize, usize),
}

/// The published constructor's arguments.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "the published arguments, each on its own"
)]
struct PublishedConfig {
    img_size: Size,
    #[serde(default = "patch_size")]
    patch_size: usize,
    in_chans: usize,
    num_classes: usize,
    embed_dim: usize,
    depth: usize,
    num_heads: usize,
    mlp_ratio: f64,
    #[serde(default)]
    qkv_bias: bool,
    #[serde(default = "ln_eps")]
    ln_eps: f64,
    #[serde(default)]
    use_t2t: bool,
    #[serde(default)]
    tokens_type: Option<TokensType>,
    #[serde(default = "token_dim")]
    token_dim: usize,
    #[serde(default)]
    distilled: bool,
    #[serde(default)]
    ada_head: bool,
    #[serde(default)]
    ada_head_attn: bool,
    #[serde(default)]
    ada_head_v2: bool,
    #[serde(default)]
    ada_layer: bool,
    #[serde(default)]
    ada_token: bool,
    #[serde(default)]
    ada_token_with_mlp: bool,
    #[serde(default)]
    ada_token_start_layer: usize,
    #[serde(default)]
    norm_policy: bool,
    #[serde(default = "keep_layers")]
    keep_layers: usize,
}

fn patch_size() -> usize {
    16
}

fn ln_eps() -> f64 {
    1e-6
}

fn token_dim() -> usize {
    64
}

fn keep_layers() -> usize {
    1
}

impl PublishedConfig {
    fn model(self) -> Result<ModelConfig, String> {
        let ada_head = match (self.ada_head, self.ada_head_attn, self.ada_head_v2) {
            (false, ..) => None,
            (true, true, true) => {
                return Err("config: ada_head_attn and ada_head_v2 exclude each other".into());
            }
            (true, true, false) => Some(HeadDeactivation::Partial),
            (true, false, true) => Some(HeadDeactivation::HeadV2),
            (true, false, false) => Some(HeadDeactivation::Full),
        };
        let decisions = DecisionConfig {
            ada_token: self.ada_token,
            ada_token_with_mlp: self.ada_token_with_mlp,
            ada_token_start_layer: self.ada_token_start_layer,
            ada_head,
            ada_layer: self.ada_layer,
            keep_layers: self.keep_layers,
            norm_policy: self.norm_policy,
            ..DecisionConfig::default()
        };
        let decides = self.ada_token || self.ada_head || self.ada_layer;
        Ok(ModelConfig {
            preset: "recording".into(),
            img_size: match self.img_size {
                Size::Square(side) => (side, side),
                Size::Sides(height, width) => (height, width),
            },
            patch_size: self.patch_size,
            conv_stem: None,
            tokens_to_token: self.use_t2t.then(|| T2tConfig {
                tokens_type: self.tokens_type.unwrap_or(TokensType::Performer),
                token_dim: self.token_dim,
            }),
            in_chans: self.in_chans,
            num_classes: self.num_classes,
            embed_dim: self.embed_dim,
            depth: self.depth,
            num_heads: self.num_heads,
            mlp_ratio: self.mlp_ratio,
            qkv_bias: self.qkv_bias,
            layer_norm_eps: self.ln_eps,
            // With a gradient wherever one was recorded.
            pos_embed: PosEmbed::Learned,
            distilled: self.distilled,
            decisions: decides.then_some(decisions),
            normalization: None,
            preprocessing: None,
            class_names: Vec::new(),
            trained_on: None,
        })
    }
}

/// The published arguments of the budget losses; what is not there weighs nothing.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct PublishedLoss {
    head_target_ratio: f64,
    layer_target_ratio: f64,
    token_target_ratio: f64,
    head_loss_ratio: f64,
    layer_loss_ratio: f64,
    token_loss_ratio: f64,
    head_diverse_ratio: f64,
    layer_diverse_ratio: f64,
    head_entropy_weight: f64,
    layer_entropy_weight: f64,
    head_minimal: f64,
    layer_minimal: f64,
    token_minimal: f64,
    head_minimal_weight: f64,
    layer_minimal_weight: f64,
    token_minimal_weight: f64,
}

impl PublishedLoss {
    fn usage_loss(self) -> UsageLoss {
        UsageLoss {
            tokens: AxisLoss {
                minimum: self.token_minimal,
                minimum_weight: self.token_minimal_weight,
                ..AxisLoss::new(
                    self.token_target_ratio,
                    self.token_loss_ratio,
                    Deviation::Squared,
                )
            },
            heads: AxisLoss {
                diverse_weight: self.head_diverse_ratio,
                entropy_weight: self.head_entropy_weight,
                minimum: self.head_minimal,
                minimum_weight: self.head_minimal_weight,
                ..AxisLoss::new(
                    self.head_target_ratio,
                    self.head_loss_ratio,
                    Deviation::Absolute,
                )
            },
            blocks: AxisLoss {
                diverse_weight: self.layer_diverse_ratio,
                entropy_weight: self.layer_entropy_weight,
                minimum: self.layer_minimal,
                minimum_weight: self.layer_minimal_weight,
                ..AxisLoss::new(
                    self.layer_target_ratio,
                    self.layer_loss_ratio,
                    Deviation::Absolute,
                )
            },
        }
    }
}
