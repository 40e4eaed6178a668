//! Recordings of the published implementation: reading them, and comparing with them.

use std::collections::HashMap;
use std::path::PathBuf;

use adavit_decision::{DecisionConfig, HeadDeactivation};
use adavit_model::{ModelConfig, PosEmbed};
use candle_core::{DType, Device, Result, Tensor};
use serde_json::Value;

/// One recording.
pub(crate) struct Recording {
    pub(crate) config: ModelConfig,
    pub(crate) loss: Option<Value>,
    pub(crate) tensors: HashMap<String, Tensor>,
}

impl Recording {
    pub(crate) fn load(name: &str) -> Self {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("tests/recordings")
            .join(format!("{name}.safetensors"));
        let bytes = std::fs::read(path).unwrap();
        let (_, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
        let metadata = metadata.metadata().clone().unwrap();
        let json = |key: &str| serde_json::from_str::<Value>(&metadata[key]).unwrap();
        Self {
            config: model_config(&json("config")),
            loss: metadata
                .contains_key("loss_config")
                .then(|| json("loss_config")),
            tensors: candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).unwrap(),
        }
    }

    pub(crate) fn weights(&self) -> HashMap<String, Tensor> {
        let named = self.tensors.iter();
        named
            .filter_map(|(n, t)| Some((n.strip_prefix("weights.")?.to_string(), t.clone())))
            .collect()
    }

    /// The recorded noises, in the order of the gate calls; token noise as `(B, N - 1)`.
    pub(crate) fn noises(&self) -> Vec<Tensor> {
        (0..)
            .map_while(|n| self.tensors.get(&format!("noise.{n}")))
            .map(|noise| match noise.rank() {
                3 => noise.squeeze(2).unwrap(),
                _ => noise.clone(),
            })
            .collect()
    }
}

/// From the published argument names.
fn model_config(json: &Value) -> ModelConfig {
    let size = |key: &str| json[key].as_u64().unwrap() as usize;
    let flag = |key: &str| json[key].as_bool().unwrap_or(false);
    let ada_head = match (flag("ada_head"), flag("ada_head_attn"), flag("ada_head_v2")) {
        (false, ..) => None,
        (_, true, _) => Some(HeadDeactivation::Partial),
        (_, _, true) => Some(HeadDeactivation::HeadV2),
        _ => Some(HeadDeactivation::Full),
    };
    let decisions = DecisionConfig {
        ada_token: flag("ada_token"),
        ada_token_with_mlp: flag("ada_token_with_mlp"),
        ada_token_start_layer: json["ada_token_start_layer"].as_u64().unwrap_or(0) as usize,
        ada_head,
        ada_layer: flag("ada_layer"),
        keep_layers: json["keep_layers"].as_u64().unwrap_or(1) as usize,
        norm_policy: flag("norm_policy"),
        ..DecisionConfig::default()
    };
    let decides = decisions.ada_token || decisions.ada_head.is_some() || decisions.ada_layer;
    ModelConfig {
        preset: "recording".into(),
        img_size: (size("img_size"), size("img_size")),
        patch_size: size("patch_size"),
        in_chans: size("in_chans"),
        num_classes: size("num_classes"),
        embed_dim: size("embed_dim"),
        depth: size("depth"),
        num_heads: size("num_heads"),
        mlp_ratio: json["mlp_ratio"].as_f64().unwrap(),
        qkv_bias: flag("qkv_bias"),
        layer_norm_eps: json["ln_eps"].as_f64().unwrap_or(1e-6),
        pos_embed: PosEmbed::Sinusoid,
        decisions: decides.then_some(decisions),
        normalization: None,
        class_names: Vec::new(),
    }
}

/// The largest difference between two tensors, in f64.
pub(crate) fn largest_difference(a: &Tensor, b: &Tensor) -> Result<f64> {
    assert_eq!(a.dims(), b.dims());
    (a.to_dtype(DType::F64)? - b.to_dtype(DType::F64)?)?
        .abs()?
        .flatten_all()?
        .max(0)?
        .to_scalar()
}
