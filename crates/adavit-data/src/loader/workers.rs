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
mod tests;
