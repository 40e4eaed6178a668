//! The record, in a checkpoint, of the images that it was trained on.

use std::path::Path;

use adavit_data::Labelled;
use adavit_model::TrainedOn;

use crate::error::Result;

/// Returns the record of a model that is trained on `data`, of which `seed` chooses the share
/// `held_out` that is held out.
///
/// # Errors
/// If the images cannot be read.
pub fn trained_on(data: &dyn Labelled, held_out: f64, seed: u64) -> Result<TrainedOn> {
    let mut hasher = crc32fast::Hasher::new();
    data.identify(&mut |bytes| hasher.update(bytes))?;
    // Not the whole path of a folder: a checkpoint is given to others.
    let name = Path::new(data.name()).file_name();
    Ok(TrainedOn {
        data: name.map_or_else(
            || data.name().into(),
            |name| name.to_string_lossy().into_owned(),
        ),
        images: data.len(),
        crc32: hasher.finalize(),
        held_out,
        seed,
    })
}

#[cfg(test)]
mod tests {
    use adavit_data::Dataset;

    use super::*;

    #[test]
    fn the_record_names_the_folder_and_sums_labels_and_pixels() {
        let made = |labels: &[u8]| {
            let (pixels, names) = (vec![1, 2, 3, 4], vec!["a".into(), "b".into()]);
            Dataset::new("/some/where/idx", [1, 1, 2], pixels, labels.to_vec(), names).unwrap()
        };
        let record = trained_on(&made(&[0, 1]), 0.5, 7).unwrap();
        assert_eq!((record.data.as_str(), record.images), ("idx", 2));
        assert_eq!(record.crc32, crc32fast::hash(&[0, 1, 1, 2, 3, 4]));
        assert_ne!(
            record.crc32,
            trained_on(&made(&[1, 1]), 0.5, 7).unwrap().crc32
        );
    }
}
