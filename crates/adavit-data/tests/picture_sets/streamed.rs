//! Shards that do not fit the cache are read in an order of their own, the same for any number of workers.

use std::path::Path;
use std::sync::Arc;

use adavit_data::{
    BatchPlan, Broken, InputConfig, Labelled, Loader, LoaderOptions, PictureSet, Preprocessing,
    SizedPictures, epoch_order, stored_order, write_tar,
};
use candle_core::Device;

use crate::files::{folder, found};

/// What 30 pictures of 3x2 pixels with 3 channels need in memory.
const DECODED: u64 = 30 * 18;

fn sized(set: PictureSet, cache_bytes: u64) -> SizedPictures {
    let input = InputConfig {
        in_chans: 3,
        img_size: (2, 2),
        preprocessing: Preprocessing::default(),
    };
    SizedPictures::new(set, input).cached(cache_bytes)
}

fn pictures() -> tempfile::TempDir {
    let paths: Vec<String> = (0..30).map(|i| format!("{}/{i:02}.png", i / 10)).collect();
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    folder(&paths)
}

fn packed(root: &Path) -> tempfile::TempDir {
    let packed = tempfile::tempdir().unwrap();
    write_tar(packed.path(), "train", &found(root).whole.unwrap(), 7).unwrap();
    packed
}

fn order(set: &SizedPictures) -> Vec<u32> {
    let all: Vec<u32> = (0..set.len() as u32).collect();
    stored_order(set.stored_runs(), &all, 3, 1)
}

#[test]
fn only_shards_that_do_not_fit_are_streamed() {
    let root = pictures();
    let packed = packed(root.path());
    let files = sized(found(root.path()).whole.unwrap(), 0);
    let fits = sized(found(packed.path()).train.unwrap(), DECODED);
    let streamed = sized(found(packed.path()).train.unwrap(), DECODED - 1);
    let all: Vec<u32> = (0..30).collect();
    assert_eq!(order(&files), epoch_order(&all, 3, 1));
    assert_eq!(order(&fits), epoch_order(&all, 3, 1));
    let mut own = order(&streamed);
    assert_ne!(own, epoch_order(&all, 3, 1));
    own.sort_unstable();
    assert_eq!(own, all);
}

#[test]
fn a_streamed_epoch_is_the_same_for_any_workers_and_after_a_resume() {
    let root = pictures();
    let packed = packed(root.path());
    let set: Arc<dyn Labelled> = Arc::new(sized(found(packed.path()).train.unwrap(), 0));
    let all: Vec<u32> = (0..30).collect();
    let order = stored_order(set.stored_runs(), &all, 3, 1);
    let normalization = set.normalization().unwrap();
    let pixels = |workers: usize, first: usize| -> Vec<Vec<f32>> {
        let options = LoaderOptions {
            workers,
            broken: Broken::Stop,
            ..LoaderOptions::default()
        };
        let set = Arc::clone(&set);
        let loader = Loader::new(set, normalization.clone(), Device::Cpu, options).unwrap();
        let batches = loader.batches(BatchPlan::of_order(&order, 4, first));
        let images = |batch: adavit_data::Result<adavit_data::Batch>| {
            let images = batch.unwrap().images;
            images.flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        batches.unwrap().map(images).collect()
    };
    let whole = pixels(0, 0);
    assert_eq!(whole.len(), 8);
    assert_eq!(pixels(1, 0), whole);
    assert_eq!(pixels(4, 0), whole);
    assert_eq!(pixels(2, 5), whole[5..]);
}
