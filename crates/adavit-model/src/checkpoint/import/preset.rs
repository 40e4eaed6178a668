//! Which preset a model is, by its sizes.

use crate::config::ModelConfig;
use crate::presets::PRESETS;

/// The name of the preset with all of a model's sizes, whatever its classes; without such a preset
/// a name that says so.
pub(crate) fn preset_name(config: &ModelConfig) -> String {
    let preset = presets()
        .find(|preset| preset.img_size == config.img_size && same_architecture(preset, config));
    match (preset, config.distilled) {
        (Some(preset), _) => preset.preset,
        (None, true) => "custom_deit_distilled".into(),
        (None, false) if config.stem.is_tokens_to_token() => "custom_t2t_vit".into(),
        (None, false) => "custom_vit".into(),
    }
}

/// The preset of the same architecture, whatever the size of its images and its classes.
pub(super) fn related_preset(config: &ModelConfig) -> Option<ModelConfig> {
    presets().find(|preset| same_architecture(preset, config))
}

fn presets() -> impl Iterator<Item = ModelConfig> {
    let names = PRESETS.into_iter();
    names.filter_map(|name| ModelConfig::preset(name).ok())
}

fn same_architecture(preset: &ModelConfig, config: &ModelConfig) -> bool {
    let sizes = |config: &ModelConfig| {
        (
            (config.embed_dim, config.depth, config.num_heads),
            (config.hidden_dim(), config.qkv_bias, config.distilled),
            (config.stem.clone(), config.in_chans),
        )
    };
    sizes(preset) == sizes(config)
}
