//! Batches made ahead on worker threads, in an order that does not depend on them.
//!
//! Each worker takes the number of the next batch and makes that batch alone. What a batch holds is
//! keyed by (seed, epoch, sample), so it is the same on every worker. At most
//! [`LoaderOptions::prefetch`] batches for each worker wait to be taken, so memory is bounded. Batches
//! are given in their order.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use candle_core::Device;

use crate::augmentation::augment::KeyedAugment;
use crate::augmentation::repeats::RepeatedSample;
use crate::augmentation::targets::TargetOptions;
use crate::error::{Error, Result};
use crate::labelled::Labelled;
use crate::loader::batch::{Batch, Broken, RawBatch, Source};
use crate::normalization::Normalization;

/// How batches are made ahead.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoaderOptions {
    /// Threads that make batches; 0 makes each batch when it is asked for, on the thread that asks.
    pub workers: usize,
    /// Batches for each worker that may wait, at least 1.
    pub prefetch: usize,
    /// What happens where an image cannot be read.
    pub broken: Broken,
}

impl Default for LoaderOptions {
    /// No workers; with workers, two batches for each, as PyTorch's `prefetch_factor`.
    fn default() -> Self {
        Self {
            workers: 0,
            prefetch: 2,
            broken: Broken::Stop,
        }
    }
}

/// Makes batches of a set's images: the same ones with any number of workers.
///
/// ```
/// use std::sync::Arc;
/// use adavit_data::{BatchPlan, Dataset, Loader, LoaderOptions, epoch_order};
/// use candle_core::Device;
///
/// let names = vec!["cat".to_string(), "dog".to_string()];
/// let set = Dataset::new("toy", [1, 2, 2], (0..16).collect(), vec![0, 1, 0, 1], names)?;
/// let (order, normalization) = (epoch_order(&set.indices(), 42, 0), set.normalization());
/// let options = LoaderOptions { workers: 2, ..LoaderOptions::default() };
/// let loader = Loader::new(Arc::new(set), normalization, Device::Cpu, options)?;
/// for batch in loader.batches(BatchPlan::of_order(&order, 2, 0))? {
///     assert_eq!(batch?.images.dims(), [2, 1, 2, 2]);
/// }
/// # Ok::<(), adavit_data::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Loader {
    source: Source,
    device: Device,
    options: LoaderOptions,
}

impl Loader {
    /// Returns a loader of `set`, whose images are normalised by `normalization` and put on `device`.
    ///
    /// # Errors
    /// [`Error::Setting`] if `normalization` has another number of channels than the images.
    pub fn new(
        set: Arc<dyn Labelled>,
        normalization: Normalization,
        device: Device,
        options: LoaderOptions,
    ) -> Result<Self> {
        normalization.tables(set.dims()[0])?;
        Ok(Self {
            source: Source {
                set,
                normalization,
                broken: options.broken,
            },
            device,
            options,
        })
    }

    /// Iterates over the batches of a plan.
    ///
    /// # Errors
    /// [`Error::Setting`] if the augmentation does not fit the images, [`Error::Worker`] if the system
    /// has no room for another thread.
    pub fn batches(&self, mut plan: BatchPlan) -> Result<Batches> {
        if let Some(augment) = &mut plan.augment {
            augment.validate(self.source.set.dims())?;
            *augment = augment.filled_with_mean(&self.source.normalization);
        }
        let plan = Arc::new(Plan {
            source: self.source.clone(),
            plan,
        });
        let workers = self.options.workers.min(plan.len());
        let workers = (workers > 0)
            .then(|| Workers::start(workers, self.options.prefetch, &plan))
            .transpose()?;
        Ok(Batches {
            plan,
            device: self.device.clone(),
            next: 0,
            workers,
        })
    }
}

/// What batches hold.
#[derive(Debug, Clone, Default)]
pub struct BatchPlan {
    /// The samples of each batch: see [`BatchPlan::of_order`].
    pub batches: Vec<Vec<RepeatedSample>>,
    /// The number of the first batch in its epoch, which keys how its images are mixed.
    pub first: u64,
    /// How images are varied.
    pub augment: Option<KeyedAugment>,
    /// What the targets of mixed images are made for; without it, nothing is mixed.
    pub targets: Option<TargetOptions>,
}

impl BatchPlan {
    /// Returns the plan of an epoch's order, cut into batches of `batch_size`, of which the last holds
    /// what is left. `first` batches of it are done.
    ///
    /// # Panics
    /// If `batch_size` is 0.
    pub fn of_order<S: Copy + Into<RepeatedSample>>(
        order: &[S],
        batch_size: usize,
        first: usize,
    ) -> Self {
        let batches = order.chunks(batch_size).skip(first);
        let samples = |batch: &[S]| batch.iter().map(|&sample| sample.into()).collect();
        Self {
            batches: batches.map(samples).collect(),
            first: first as u64,
            ..Self::default()
        }
    }
}

/// An iterator over batches: see [`Loader::batches`]. It ends after the first error.
///
/// Dropping it ends its workers; each finishes the image that it is at.
#[derive(Debug)]
pub struct Batches {
    plan: Arc<Plan>,
    device: Device,
    next: usize,
    workers: Option<Workers>,
}

impl Iterator for Batches {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.next >= self.plan.len() {
            return None;
        }
        let made = match &self.workers {
            Some(workers) => workers.take(self.next),
            None => self.plan.make(self.next, &|| false),
        };
        self.next += 1;
        let batch = made.and_then(|raw| raw.on(&self.device));
        if batch.is_err() {
            self.next = self.plan.len();
            self.workers = None;
        }
        Some(batch)
    }
}

/// What all batches of an iterator are made from.
#[derive(Debug)]
struct Plan {
    source: Source,
    plan: BatchPlan,
}

impl Plan {
    fn len(&self) -> usize {
        self.plan.batches.len()
    }

    fn make(&self, number: usize, over: &dyn Fn() -> bool) -> Result<RawBatch> {
        let augment = self.plan.augment.as_ref();
        let samples = &self.plan.batches[number];
        let mut batch = self.source.make(samples, augment, over)?;
        let mixing = augment.filter(|augment| augment.mixes());
        if let (Some(augment), Some(options)) = (mixing, self.plan.targets)
            && !over()
        {
            batch.mix(augment, self.plan.first + number as u64, options)?;
        }
        Ok(batch)
    }
}

/// Threads that make batches, and what they share with the iterator.
#[derive(Debug)]
struct Workers {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Wakes workers: there is room for another batch, or the end has come.
    room: Condvar,
    /// Wakes the iterator: another batch is made.
    made: Condvar,
    /// Batches that may be in the making or waiting.
    most: usize,
}

#[derive(Debug, Default)]
struct State {
    /// The number of the next batch that a worker takes on.
    next: usize,
    /// Batches that the iterator took.
    taken: usize,
    made: BTreeMap<usize, Result<RawBatch>>,
    over: bool,
}

/// How long the iterator waits before it looks whether the workers still live.
const PATIENCE: Duration = Duration::from_secs(1);

impl Workers {
    fn start(workers: usize, prefetch: usize, plan: &Arc<Plan>) -> Result<Self> {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            room: Condvar::new(),
            made: Condvar::new(),
            most: workers * prefetch.max(1),
        });
        let mut started = Self {
            shared: Arc::clone(&shared),
            threads: Vec::with_capacity(workers),
        };
        for number in 0..workers {
            let (shared, plan) = (Arc::clone(&shared), Arc::clone(plan));
            let thread = std::thread::Builder::new()
                .name(format!("loader-{number}"))
                .spawn(move || work(&shared, &plan))
                .map_err(|error| Error::Worker(format!("cannot be started: {error}")))?;
            started.threads.push(thread);
        }
        Ok(started)
    }

    /// Waits for the batch of this number.
    fn take(&self, number: usize) -> Result<RawBatch> {
        let mut state = self.shared.state();
        loop {
            if let Some(made) = state.made.remove(&number) {
                state.taken = number + 1;
                self.shared.room.notify_all();
                return made;
            }
            let waited = self.shared.made.wait_timeout(state, PATIENCE);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
            let dead = self.threads.iter().all(JoinHandle::is_finished);
            if dead && !state.made.contains_key(&number) {
                return Err(Error::Worker("ended before its last batch".into()));
            }
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.shared.state().over = true;
        self.shared.room.notify_all();
        for thread in self.threads.drain(..) {
            // Its panics were caught and given as errors.
            let _ = thread.join();
        }
    }
}

impl Shared {
    /// A panic is caught before it can reach the lock, so a poisoned one holds whole values.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The number of the next batch to make, once there is room for it; none at the end.
    fn next(&self, batches: usize) -> Option<usize> {
        let mut state = self.state();
        loop {
            if state.over || state.next == batches {
                return None;
            }
            if state.next < state.taken + self.most {
                state.next += 1;
                return Some(state.next - 1);
            }
            state = self
                .room
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Makes batches until there are no more, or the iterator is dropped.
fn work(shared: &Shared, plan: &Plan) {
    while let Some(number) = shared.next(plan.len()) {
        let over = || shared.state().over;
        let made = catch_unwind(AssertUnwindSafe(|| plan.make(number, &over)));
        let made = made.unwrap_or_else(|panic| Err(Error::Worker(said(&*panic))));
        shared.state().made.insert(number, made);
        shared.made.notify_all();
    }
}

/// What a panic said.
fn said(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("failed: {}", text.unwrap_or("a panic without a message"))
}

#[cfg(test)]
mod tests {
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

        fn pixels(
            &self,
            index: usize,
            augment: Option<&KeyedAugment>,
            out: &mut [u8],
        ) -> Result<()> {
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
}
