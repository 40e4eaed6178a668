//! Changes that are made when they are asked for: another head, another image size, no distillation.

use candle_core::Tensor;

use super::imported::{ImportOptions, Imported};
use super::preset::preset_name;
use crate::checkpoint::tensors::initial_tensors;
use crate::error::{Error, Result};
use crate::positions::resample_pos_embed;

/// Changes a checkpoint as the options ask, and notes it.
pub(super) fn adapt(imported: &mut Imported, options: &ImportOptions) -> Result<()> {
    if options.drop_distillation {
        drop_distillation(imported)?;
    }
    if let Some(img_size) = options.img_size {
        resize(imported, img_size)?;
    }
    if let Some(num_classes) = options.num_classes {
        new_head(imported, num_classes, options.seed)?;
    }
    Ok(())
}

fn drop_distillation(imported: &mut Imported) -> Result<()> {
    let checkpoint = &mut imported.checkpoint;
    if !checkpoint.config.distilled {
        return Err(Error::Import(
            "drop_distillation: the checkpoint has no distillation token; leave the option out"
                .into(),
        ));
    }
    let names = ["dist_token", "head_dist.weight", "head_dist.bias"];
    checkpoint
        .tensors
        .retain(|name, _| !names.contains(&name.as_str()));
    if let Some(pos_embed) = checkpoint.tensors.get_mut("pos_embed") {
        let n = pos_embed.dim(1)?;
        let (class, patches) = (pos_embed.narrow(1, 0, 1)?, pos_embed.narrow(1, 2, n - 2)?);
        *pos_embed = Tensor::cat(&[class, patches], 1)?;
    }
    checkpoint.config.distilled = false;
    checkpoint.config.head_dist = true;
    checkpoint.config.preset = preset_name(&checkpoint.config);
    imported
        .notes
        .push("the distillation token and its head were left out".into());
    Ok(())
}

fn resize(imported: &mut Imported, img_size: (usize, usize)) -> Result<()> {
    let checkpoint = &mut imported.checkpoint;
    let before = checkpoint.config.clone();
    if img_size == before.img_size {
        return Ok(());
    }
    checkpoint.config.img_size = img_size;
    checkpoint.config.validate()?;
    checkpoint.config.preset = preset_name(&checkpoint.config);
    let (from, to) = (before.grid(), checkpoint.config.grid());
    if let Some(pos_embed) = checkpoint.tensors.get_mut("pos_embed") {
        *pos_embed = resample_pos_embed(pos_embed, before.num_prefix_tokens(), from, to)?;
    }
    imported.notes.push(format!(
        "the position embedding was resampled from {}x{} patches to {}x{}",
        from.0, from.1, to.0, to.1
    ));
    Ok(())
}

fn new_head(imported: &mut Imported, num_classes: usize, seed: u64) -> Result<()> {
    let checkpoint = &mut imported.checkpoint;
    checkpoint.config.num_classes = num_classes;
    checkpoint.config.class_names.clear();
    checkpoint.config.validate()?;
    let is_head = |name: &str| name.starts_with("head.") || name.starts_with("head_dist.");
    let mut fresh = initial_tensors(&checkpoint.config, seed, 0.0)?;
    fresh.retain(|name, _| is_head(name));
    checkpoint.tensors.retain(|name, _| !is_head(name));
    checkpoint.tensors.extend(fresh);
    imported.notes.push(format!(
        "the head is new for {num_classes} classes, and not trained"
    ));
    Ok(())
}
