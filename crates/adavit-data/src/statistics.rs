//! Mean and deviation of the pixels of images that are read one by one.

use rayon::prelude::*;

use crate::error::Result;
use crate::labelled::Labelled;
use crate::normalization::{ChannelSums, Normalization};

/// Images that are read at most: more change the third digit of nothing.
const MOST: usize = 10_000;

/// Images that are read at once.
const TOGETHER: usize = 256;

/// Returns mean and standard deviation of each channel over at most 10,000 images, evenly spaced.
pub(crate) fn pixel_statistics(set: &dyn Labelled) -> Result<Normalization> {
    let dims = set.dims();
    let mut sums = ChannelSums::new(dims[0]);
    let step = set.len().div_ceil(MOST).max(1);
    let indices: Vec<usize> = (0..set.len()).step_by(step).collect();
    for indices in indices.chunks(TOGETHER) {
        let images: Vec<Vec<u8>> = indices
            .par_iter()
            .map(|&index| {
                let mut image = vec![0; dims.iter().product()];
                set.pixels(index, None, &mut image)?;
                Ok(image)
            })
            .collect::<Result<_>>()?;
        for image in &images {
            sums.add(image);
        }
    }
    Ok(sums.normalization())
}
