//! The record, in a checkpoint, of the images that it was trained on.

use std::path::Path;

use adavit_data::Dataset;
use adavit_model::TrainedOn;

/// Returns the record of a model that is trained on `data`, of which `seed` chooses the share
/// `held_out` that is held out.
pub fn trained_on(data: &Dataset, held_out: f64, seed: u64) -> TrainedOn {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(data.labels());
    for i in 0..data.len() {
        hasher.update(data.image(i));
    }
    // Not the whole path of a folder: a checkpoint is given to others.
    let name = Path::new(data.name()).file_name();
    TrainedOn {
        data: name.map_or_else(
            || data.name().into(),
            |name| name.to_string_lossy().into_owned(),
        ),
        images: data.len(),
        crc32: hasher.finalize(),
        held_out,
        seed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_names_the_folder_and_sums_labels_and_pixels() {
        let made = |labels: &[u8]| {
            let (pixels, names) = (vec![1, 2, 3, 4], vec!["a".into(), "b".into()]);
            Dataset::new("/some/where/idx", [1, 1, 2], pixels, labels.to_vec(), names).unwrap()
        };
        let record = trained_on(&made(&[0, 1]), 0.5, 7);
        assert_eq!((record.data.as_str(), record.images), ("idx", 2));
        assert_eq!(record.crc32, crc32fast::hash(&[0, 1, 1, 2, 3, 4]));
        assert_ne!(record.crc32, trained_on(&made(&[1, 1]), 0.5, 7).crc32);
    }
}
