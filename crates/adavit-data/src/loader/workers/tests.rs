//! Batches made ahead: the same ones, in order, and no hang.

use super::*;
use crate::augmentation::settings::Augment;
use crate::dataset::Dataset;
use crate::loader::batch::make_batch;
use crate::loader::order::epoch_order;

/// A set of 40 images; the ones in `broken` cannot be read, and 39 makes a reader panic.
#[derive(Debug)]
struct Made {
    set: Dataset,
    broken: Vec<usize>,
}

impl Labelled for Made {
    fn name(&self) -> &str {
        self.set.name()
    }

    fn len(&self) -> usize {
        self.set.len()
    }

    fn class_names(&self) -> &[String] {
        self.set.class_names()
    }

    fn dims(&self) -> [usize; 3] {
        self.set.dims()
    }

    fn label(&self, index: usize) -> u32 {
        u32::from(self.set.label(index))
    }

    fn normalization(&self) -> Result<Normalization> {
        Ok(self.set.normalization())
    }

    fn identify(&self, take: &mut dyn FnMut(&[u8])) -> Result<()> {
        self.set.identify(take)
    }

    fn pixels(&self, index: usize, augment: Option<&KeyedAugment>, out: &mut [u8]) -> Result<()> {
        assert!(index != 39, "image 39");
        if self.broken.contains(&index) {
            let name = "made".into();
            let message = format!("image {index} is broken");
            return Err(Error::Inconsistent { name, message });
        }
        self.set.pixels(index, augment, out)
    }
}

fn made(broken: &[usize]) -> Arc<Made> {
    let images = (0..40 * 2 * 4 * 4).map(|i| (i * 7 % 251) as u8).collect();
    let labels = (0..40).map(|i| i % 3).collect();
    let names = (0..3).map(|i| i.to_string()).collect();
    let set = Dataset::new("made", [2, 4, 4], images, labels, names).unwrap();
    let broken = broken.to_vec();
    Arc::new(Made { set, broken })
}

/// The batches of the first `n` images in the order of an epoch.
fn given(set: Arc<Made>, n: u32, options: LoaderOptions) -> Vec<Result<Batch>> {
    let normalization = set.set.normalization();
    let loader = Loader::new(set, normalization, Device::Cpu, options).unwrap();
    let order = epoch_order(&(0..n).collect::<Vec<_>>(), 3, 1);
    let augment = Augment {
        crop_padding: 1,
        flip: true,
        ..Augment::default()
    };
    let plan = BatchPlan {
        augment: Some(augment.keyed(3, 1)),
        ..BatchPlan::of_order(&order, 7, 0)
    };
    loader.batches(plan).unwrap().collect()
}

fn with_workers(workers: usize) -> LoaderOptions {
    LoaderOptions {
        workers,
        ..LoaderOptions::default()
    }
}

#[test]
fn batches_are_the_same_with_any_number_of_workers() {
    let bits = |batch: &Batch| {
        let values: Vec<f32> = batch.images.flatten_all().unwrap().to_vec1().unwrap();
        let labels: Vec<u32> = batch.labels.to_vec1().unwrap();
        (values, labels, batch.samples.clone())
    };
    let all = |workers| -> Vec<_> {
        let batches = given(made(&[]), 39, with_workers(workers));
        batches
            .iter()
            .map(|batch| bits(batch.as_ref().unwrap()))
            .collect()
    };
    let alone = all(0);
    assert_eq!(alone.len(), 6);
    for workers in [1, 2, 4, 9] {
        assert_eq!(all(workers), alone, "{workers} workers");
    }
    let set = made(&[]);
    let order = epoch_order(&(0..39).collect::<Vec<_>>(), 3, 1);
    let augment = Augment {
        crop_padding: 1,
        flip: true,
        ..Augment::default()
    };
    let keyed = augment.keyed(3, 1);
    let normalization = set.set.normalization();
    let first = make_batch(
        &*set,
        &order[..7],
        Some(&keyed),
        &normalization,
        &Device::Cpu,
    );
    assert_eq!(bits(&first.unwrap()), alone[0]);
}

#[test]
fn an_image_that_cannot_be_read_ends_the_batches_or_is_left_out_and_named() {
    for workers in [0, 3] {
        let stopped = given(made(&[5]), 39, with_workers(workers));
        let (last, before) = stopped.split_last().unwrap();
        assert!(before.iter().all(Result::is_ok) && before.len() < 6);
        let said = last.as_ref().unwrap_err().to_string();
        assert!(said.contains("image 5 is broken"), "{said}");

        let options = LoaderOptions {
            broken: Broken::Skip,
            ..with_workers(workers)
        };
        let all: Vec<Batch> = given(made(&[5, 6]), 39, options)
            .into_iter()
            .map(Result::unwrap)
            .collect();
        let mut skipped: Vec<u32> = all
            .iter()
            .flat_map(|batch| batch.skipped.iter().map(|one| one.index))
            .collect();
        skipped.sort_unstable();
        assert_eq!(skipped, [5, 6]);
        assert_eq!(
            all.iter().map(|batch| batch.samples.len()).sum::<usize>(),
            37
        );
    }
}

#[test]
fn a_panic_in_a_worker_is_an_error_and_no_hang() {
    for workers in [1, 4] {
        let batches = given(made(&[]), 40, with_workers(workers));
        let error = batches.last().unwrap().as_ref().unwrap_err();
        assert!(matches!(error, Error::Worker(_)), "{error:?}");
        assert!(error.to_string().contains("image 39"), "{error}");
        assert!(!error.is_input_error());
    }
}

#[test]
fn workers_stay_few_batches_ahead_and_end_with_the_iterator() {
    let set = made(&[]);
    let options = with_workers(2);
    let normalization = set.set.normalization();
    let loader = Loader::new(set, normalization, Device::Cpu, options).unwrap();
    let many: Vec<u32> = (0..10_000).map(|i| i % 39).collect();
    let mut batches = loader.batches(BatchPlan::of_order(&many, 1, 0)).unwrap();
    batches.next().unwrap().unwrap();
    let shared = Arc::clone(&batches.workers.as_ref().unwrap().shared);
    assert!(shared.state().next <= 1 + 4);
    drop(batches);
    assert_eq!(Arc::strong_count(&shared), 1);
}

#[test]
fn a_normalization_of_other_channels_and_a_crop_that_is_too_wide_are_refused() {
    let set = made(&[]);
    let one = Normalization {
        mean: vec![0.0],
        std: vec![1.0],
    };
    let options = LoaderOptions::default();
    assert!(Loader::new(set.clone(), one, Device::Cpu, options).is_err());
    let normalization = set.set.normalization();
    let loader = Loader::new(set, normalization, Device::Cpu, options).unwrap();
    let wide = Augment {
        crop_padding: 4,
        ..Augment::default()
    };
    let plan = BatchPlan {
        augment: Some(wide.keyed(0, 0)),
        ..BatchPlan::default()
    };
    assert!(loader.batches(plan).is_err());
}
