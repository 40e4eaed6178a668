//! What the `config.json` of timm and of Hugging Face's transformers says beside their weights.

use std::path::Path;

use adavit_data::{CropMode, Interpolation, Normalization, Preprocessing};
use serde_json::Value;

use crate::error::{Error, Result};

/// What shapes cannot say, as far as a file does.
#[derive(Debug, Default)]
pub(super) struct Sidecar {
    pub(super) num_heads: Option<usize>,
    pub(super) img_size: Option<(usize, usize)>,
    pub(super) layer_norm_eps: Option<f64>,
    pub(super) normalization: Option<Normalization>,
    pub(super) preprocessing: Option<Preprocessing>,
    pub(super) class_names: Vec<String>,
    /// The files that said something.
    pub(super) files: Vec<&'static str>,
}

impl Sidecar {
    /// Reads what lies beside a file of weights.
    ///
    /// # Errors
    /// If a file is there and cannot be read, or is no JSON.
    pub(super) fn beside(weights: &Path) -> Result<Self> {
        let mut sidecar = Self::default();
        if let Some(config) = read(&weights.with_file_name("config.json"))? {
            if let Some(pretrained) = config.get("pretrained_cfg") {
                sidecar.timm(&config, pretrained);
            } else if config.get("architecture").is_some() {
                // timm before 0.9 wrote everything into one table.
                sidecar.timm(&config, &config);
            } else if config.get("num_attention_heads").is_some() {
                sidecar.transformers(&config);
            }
            if !sidecar.is_empty() {
                sidecar.files.push("config.json");
            }
        }
        if let Some(processor) = read(&weights.with_file_name("preprocessor_config.json"))? {
            sidecar.image_processor(&processor);
            sidecar.files.push("preprocessor_config.json");
        }
        Ok(sidecar)
    }

    fn is_empty(&self) -> bool {
        self.num_heads.is_none() && self.img_size.is_none() && self.normalization.is_none()
    }

    fn timm(&mut self, config: &Value, pretrained: &Value) {
        self.img_size = match numbers(&pretrained["input_size"])[..] {
            [_, height, width] => size(height, width),
            _ => None,
        };
        self.num_heads = config["model_args"]["num_heads"]
            .as_u64()
            .map(|n| n as usize);
        self.normalization = normalization(&pretrained["mean"], &pretrained["std"]);
        self.preprocessing = Some(Preprocessing {
            interpolation: match pretrained["interpolation"].as_str() {
                Some("bilinear") => Interpolation::Bilinear,
                _ => Interpolation::Bicubic,
            },
            crop_pct: pretrained["crop_pct"].as_f64().unwrap_or(0.875),
            crop_mode: match pretrained["crop_mode"].as_str() {
                Some("squash") => CropMode::Squash,
                _ => CropMode::Center,
            },
        });
        let names = config.get("label_names").or(pretrained.get("label_names"));
        let names = names.and_then(Value::as_array).into_iter().flatten();
        self.class_names = names
            .filter_map(|name| Some(name.as_str()?.into()))
            .collect();
    }

    fn transformers(&mut self, config: &Value) {
        self.num_heads = config["num_attention_heads"].as_u64().map(|n| n as usize);
        self.layer_norm_eps = config["layer_norm_eps"].as_f64();
        self.img_size = match (&config["image_size"], &numbers(&config["image_size"])[..]) {
            (_, [height, width]) => size(*height, *width),
            (side, _) => side.as_f64().and_then(|side| size(side, side)),
        };
        let Some(labels) = config["id2label"].as_object() else {
            return;
        };
        let name = |class: usize| labels.get(&class.to_string())?.as_str();
        let names: Option<Vec<&str>> = (0..labels.len()).map(name).collect();
        // What transformers writes for classes without names.
        let named = names.filter(|names| !names.iter().all(|name| name.starts_with("LABEL_")));
        self.class_names = named
            .unwrap_or_default()
            .into_iter()
            .map(String::from)
            .collect();
    }

    fn image_processor(&mut self, processor: &Value) {
        let normalizes = processor["do_normalize"].as_bool().unwrap_or(true);
        let given = normalization(&processor["image_mean"], &processor["image_std"]);
        if let Some(given) = given.filter(|_| normalizes) {
            self.normalization = Some(given);
        }
        let side = |value: &Value| -> Option<f64> {
            let mut sides = ["height", "shortest_edge"].into_iter();
            value
                .as_f64()
                .or_else(|| sides.find_map(|side| value[side].as_f64()))
        };
        let crops = processor["do_center_crop"].as_bool().unwrap_or(false);
        let crop_pct = match (side(&processor["crop_size"]), side(&processor["size"])) {
            (Some(crop), Some(size)) if crops && crop > 0.0 && crop <= size => crop / size,
            _ => 1.0,
        };
        self.preprocessing = Some(Preprocessing {
            // Pillow's numbers of its filters.
            interpolation: match processor["resample"].as_u64() {
                Some(3) => Interpolation::Bicubic,
                _ => Interpolation::Bilinear,
            },
            crop_pct,
            crop_mode: if processor["size"].get("shortest_edge").is_some() {
                CropMode::Center
            } else {
                CropMode::Squash
            },
        });
    }
}

/// Reads a file of JSON, if it is there.
fn read(path: &Path) -> Result<Option<Value>> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(source) => {
            return Err(Error::Unreadable {
                path: path.to_path_buf(),
                source,
            });
        }
    };
    serde_json::from_str(&text)
        .map(Some)
        .map_err(|error| Error::Checkpoint {
            path: path.to_path_buf(),
            message: format!("not JSON: {error}; mend or remove it"),
        })
}

fn numbers(value: &Value) -> Vec<f64> {
    let items = value.as_array().into_iter().flatten();
    items.filter_map(Value::as_f64).collect()
}

fn size(height: f64, width: f64) -> Option<(usize, usize)> {
    (height >= 1.0 && width >= 1.0).then_some((height as usize, width as usize))
}

fn normalization(mean: &Value, std: &Value) -> Option<Normalization> {
    let (mean, std) = (numbers(mean), numbers(std));
    (!mean.is_empty() && mean.len() == std.len()).then_some(Normalization { mean, std })
}
