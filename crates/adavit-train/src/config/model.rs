//! Changes to a preset: the table `model`.

use adavit_data::Preprocessing;
use adavit_model::{ConvStemConfig, ModelConfig, PRESETS, PosEmbed, Stem};
use serde::{Deserialize, Serialize};

/// Changes to a preset; absent fields keep the preset's value.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[expect(
    missing_docs,
    reason = "each is the field of `ModelConfig` of the same name"
)]
pub struct ModelOptions {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub img_size: Option<(usize, usize)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub in_chans: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_classes: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patch_size: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub embed_dim: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub depth: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_heads: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mlp_ratio: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub qkv_bias: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pos_embed: Option<PosEmbed>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conv_stem: Option<ConvStemConfig>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub preprocessing: Option<Preprocessing>,
}

impl ModelOptions {
    /// Makes these changes to a preset's model.
    ///
    /// # Errors
    /// If the stem cannot be what is asked for.
    pub(super) fn change(&self, model: &mut ModelConfig) -> adavit_model::Result<()> {
        let set = |field: &mut usize, value: Option<usize>| *field = value.unwrap_or(*field);
        model.img_size = self.img_size.unwrap_or(model.img_size);
        set(&mut model.in_chans, self.in_chans);
        set(&mut model.num_classes, self.num_classes);
        set(&mut model.embed_dim, self.embed_dim);
        set(&mut model.depth, self.depth);
        set(&mut model.num_heads, self.num_heads);
        model.mlp_ratio = self.mlp_ratio.unwrap_or(model.mlp_ratio);
        model.qkv_bias = self.qkv_bias.unwrap_or(model.qkv_bias);
        model.pos_embed = self.pos_embed.unwrap_or(model.pos_embed);
        if self.preprocessing.is_some() {
            model.preprocessing.clone_from(&self.preprocessing);
        }
        let mut stem = model.stem.clone();
        if let Some(convolutions) = &self.conv_stem {
            stem = stem.with_convolutions(convolutions.clone())?;
        }
        if let Some(patch_size) = self.patch_size {
            stem = stem.with_patch_size(patch_size)?;
        }
        model.stem = stem;
        Ok(())
    }

    /// Returns these changes, and those of `below` where these are absent.
    #[must_use]
    pub fn over(&self, below: &Self) -> Self {
        let [over, below] = [self.clone(), below.clone()];
        Self {
            img_size: over.img_size.or(below.img_size),
            in_chans: over.in_chans.or(below.in_chans),
            num_classes: over.num_classes.or(below.num_classes),
            patch_size: over.patch_size.or(below.patch_size),
            embed_dim: over.embed_dim.or(below.embed_dim),
            depth: over.depth.or(below.depth),
            num_heads: over.num_heads.or(below.num_heads),
            mlp_ratio: over.mlp_ratio.or(below.mlp_ratio),
            qkv_bias: over.qkv_bias.or(below.qkv_bias),
            pos_embed: over.pos_embed.or(below.pos_embed),
            conv_stem: over.conv_stem.or(below.conv_stem),
            preprocessing: over.preprocessing.or(below.preprocessing),
        }
    }

    /// Returns the preset and the changes to it that describe a model; classes, normalization and what
    /// decides are left out.
    ///
    /// # Errors
    /// If no preset has the model's stem.
    pub(crate) fn describing(model: &ModelConfig) -> adavit_model::Result<(String, Self)> {
        let base = base_of(model)?;
        let changed = |from: usize, to: usize| (from != to).then_some(to);
        let (patch_size, conv_stem) = match &model.stem {
            stem if *stem == base.stem => (None, None),
            Stem::Convolutions(convolutions) => (None, Some(convolutions.clone())),
            stem => (Some(stem.patch_size()), None),
        };
        let options = Self {
            img_size: (base.img_size != model.img_size).then_some(model.img_size),
            in_chans: changed(base.in_chans, model.in_chans),
            num_classes: changed(base.num_classes, model.num_classes),
            patch_size,
            embed_dim: changed(base.embed_dim, model.embed_dim),
            depth: changed(base.depth, model.depth),
            num_heads: changed(base.num_heads, model.num_heads),
            mlp_ratio: (base.mlp_ratio != model.mlp_ratio).then_some(model.mlp_ratio),
            qkv_bias: (base.qkv_bias != model.qkv_bias).then_some(model.qkv_bias),
            pos_embed: (base.pos_embed != model.pos_embed).then_some(model.pos_embed),
            conv_stem,
            preprocessing: None,
        };
        Ok((base.preset, options))
    }
}

/// The preset that a model is nearest to: its own, or one of the same stem.
fn base_of(model: &ModelConfig) -> adavit_model::Result<ModelConfig> {
    if PRESETS.contains(&model.preset.as_str()) {
        return ModelConfig::preset(&model.preset);
    }
    if matches!(model.stem, Stem::TokensToToken(_)) {
        for preset in PRESETS {
            let preset = ModelConfig::preset(preset)?;
            if preset.stem == model.stem {
                return Ok(preset);
            }
        }
    }
    ModelConfig::preset("deit_small_patch16_224")
}
