//! Position embeddings for images of another size: resampled as timm does, bicubic and antialiased.

use adavit_data::{Interpolation, resize_plane};
use candle_core::{Device, Tensor};

use crate::error::{Error, Result};

/// Returns the embedding of a grid of patches for another grid, rows then columns; the first
/// `num_prefix_tokens` tokens stay as they are.
///
/// # Shapes
/// `pos_embed`: `(1, num_prefix_tokens + rows * columns, C)` f32, on the CPU, for each grid.
///
/// # Errors
/// If the embedding is not that of `from`, or a grid is empty.
pub fn resample_pos_embed(
    pos_embed: &Tensor,
    num_prefix_tokens: usize,
    from: (usize, usize),
    to: (usize, usize),
) -> Result<Tensor> {
    let (_, n, c) = pos_embed.dims3()?;
    let cells = |grid: (usize, usize)| grid.0.checked_mul(grid.1).filter(|cells| *cells > 0);
    let (Some(old), Some(new)) = (cells(from), cells(to)) else {
        return Err(Error::Import(format!(
            "pos_embed: expected grids of at least one patch, found {from:?} and {to:?}"
        )));
    };
    if n != num_prefix_tokens + old {
        return Err(Error::Import(format!(
            "pos_embed: expected {num_prefix_tokens} tokens and {}x{} patches, found {n} tokens",
            from.0, from.1
        )));
    }
    if from == to {
        return Ok(pos_embed.clone());
    }
    let values = pos_embed.flatten_all()?.to_vec1::<f32>()?;
    let (prefix, patches) = values.split_at(num_prefix_tokens * c);
    let mut resampled = prefix.to_vec();
    resampled.resize((num_prefix_tokens + new) * c, 0.0);
    for channel in 0..c {
        let plane: Vec<f32> = patches[channel..].iter().step_by(c).copied().collect();
        let plane = resize_plane(&plane, from, to, Interpolation::Bicubic)
            .map_err(|error| Error::Import(format!("pos_embed: {error}")))?;
        let room = resampled[prefix.len() + channel..].iter_mut().step_by(c);
        room.zip(plane).for_each(|(y, x)| *y = x);
    }
    let shape = (1, num_prefix_tokens + new, c);
    Ok(Tensor::from_vec(resampled, shape, &Device::Cpu)?)
}
