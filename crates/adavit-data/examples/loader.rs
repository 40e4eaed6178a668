//! Feeds another model: softmax regression on the pixels of a folder, trained with timm's augmentation.
//!
//! ```text
//! cargo run --release -p adavit-data --example loader -- PATH [SIDE [WORKERS [EPOCHS]]] [fast]
//! ```
//!
//! `fast` decodes JPEGs at a part of their size where that is enough. PATH is a data set in any format that `open` finds. The program prints how many images each epoch
//! took per second, with loading alone in the first, and the accuracy on the test part.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for the terminal"
)]

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use adavit_data::{
    Augment, Batch, BatchPlan, InputConfig, Labelled, Loader, LoaderOptions, Normalization,
    OpenOptions, Preprocessing, Result, SplitOptions, TrainCrop, all_indices, epoch_order,
    make_batch, open,
};
use candle_core::{D, DType, Device, Tensor};

const SEED: u64 = 0;
const BATCH_SIZE: usize = 64;
const LEARNING_RATE: f64 = 0.01;

fn main() -> ExitCode {
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    let fast_decode = args.pop_if(|last| last == "fast").is_some();
    let number = |at: usize, default| {
        let given = args.get(at).map(|text| text.parse());
        given.unwrap_or(Ok(default)).ok().filter(|n| *n > 0)
    };
    let numbers = (number(1, 32), number(2, 2), number(3, 3));
    let (Some(path), (Some(side), Some(workers), Some(epochs))) = (args.first(), numbers) else {
        eprintln!("usage: loader PATH [SIDE [WORKERS [EPOCHS]]] [fast]");
        return ExitCode::from(2);
    };
    let options = LoaderOptions {
        workers,
        ..LoaderOptions::default()
    };
    let input = Input { side, fast_decode };
    match run(Path::new(path), input, options, epochs) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("loader: {error}");
            ExitCode::from(if error.is_input_error() { 2 } else { 3 })
        }
    }
}

/// What becomes of a picture.
#[derive(Clone, Copy)]
struct Input {
    side: usize,
    fast_decode: bool,
}

fn run(path: &Path, input: Input, options: LoaderOptions, epochs: usize) -> Result<()> {
    let side = input.side;
    let start = Instant::now();
    let found = open(path, &OpenOptions::default())?;
    println!("{} in {:.2} s", found.format, start.elapsed().as_secs_f64());
    let splits = found.splits(&SplitOptions {
        input: InputConfig {
            in_chans: 3,
            img_size: (side, side),
            preprocessing: Preprocessing::default(),
        },
        cache_bytes: 0,
        fast_decode: input.fast_decode,
        val_split: 0.1,
        seed: SEED,
    })?;
    let (train, normalization) = (splits.train, Normalization::imagenet());
    let loader = Loader::new(train.clone(), normalization.clone(), Device::Cpu, options)?;
    let mut model = Softmax::new(train.class_names().len(), 3 * side * side)?;
    for epoch in 0..=epochs as u64 {
        let order = epoch_order(&all_indices(train.as_ref()), SEED, epoch);
        let plan = BatchPlan {
            augment: Some(augment(side).keyed(SEED, epoch)),
            ..BatchPlan::of_order(&order, BATCH_SIZE, 0)
        };
        let start = Instant::now();
        for batch in loader.batches(plan)? {
            let batch = batch?;
            // The first epoch only loads.
            if epoch > 0 {
                model.step(&batch)?;
            }
        }
        let speed = order.len() as f64 / start.elapsed().as_secs_f64();
        println!("epoch {epoch}: {speed:.0} images/s");
    }
    let test = splits.test.as_ref();
    println!("top-1 {:.4}", model.top1(test, &normalization)?);
    Ok(())
}

/// Photographs are cropped and mirrored as for ImageNet; small pictures have the whole of RandAugment too.
fn augment(side: usize) -> Augment {
    if side >= 64 {
        return Augment {
            train_crop_mode: TrainCrop::Rrc,
            hflip: 0.5,
            ..Augment::default()
        };
    }
    Augment {
        crop_padding: side / 8,
        flip: true,
        auto_augment: "rand-m9-mstd0.5-inc1".parse().ok(),
        reprob: 0.25,
        ..Augment::default()
    }
}

/// Softmax regression by stochastic gradient descent.
struct Softmax {
    /// `(pixels, K)`.
    weight: Tensor,
}

impl Softmax {
    fn new(num_classes: usize, pixels: usize) -> Result<Self> {
        let weight = Tensor::zeros((pixels, num_classes), DType::F32, &Device::Cpu)?;
        Ok(Self { weight })
    }

    fn logits(&self, images: &Tensor) -> Result<Tensor> {
        Ok(images.flatten_from(1)?.matmul(&self.weight)?)
    }

    fn step(&mut self, batch: &Batch) -> Result<()> {
        let logits = self.logits(&batch.images)?;
        let powers = logits
            .broadcast_sub(&logits.max_keepdim(D::Minus1)?)?
            .exp()?;
        let shares = powers.broadcast_div(&powers.sum_keepdim(D::Minus1)?)?;
        let classes = Tensor::arange(0, self.weight.dim(1)? as u32, &Device::Cpu)?;
        let labels = batch
            .labels
            .unsqueeze(1)?
            .broadcast_eq(&classes.unsqueeze(0)?)?;
        let error = (shares - labels.to_dtype(DType::F32)?)?;
        let gradient = batch.images.flatten_from(1)?.t()?.matmul(&error)?;
        let factor = LEARNING_RATE / batch.samples.len() as f64;
        self.weight = (&self.weight - (gradient * factor)?)?;
        Ok(())
    }

    fn top1(&self, test: &dyn Labelled, normalization: &Normalization) -> Result<f64> {
        let mut right = 0.0;
        for indices in all_indices(test).chunks(BATCH_SIZE) {
            let batch = make_batch(test, indices, None, normalization, &Device::Cpu)?;
            let found = self.logits(&batch.images)?.argmax(D::Minus1)?;
            let equal = found.eq(&batch.labels)?.to_dtype(DType::F32)?;
            right += f64::from(equal.sum_all()?.to_scalar::<f32>()?);
        }
        Ok(right / test.len() as f64)
    }
}
