//! What the adaptive model does with the test images: usage, compute, confusions, and pictures.

use std::io::Cursor;
use std::path::Path;

use adavit_model::{Checkpoint, ModelConfig, PreparedTransformer, Workspace};
use candle_core::Device;

use super::charts::{Labels, histogram};
use super::html::{Cell, Page};
use super::{Drawn, draw_kept};
use crate::classes::ClassTable;
use crate::config::TrainConfig;
use crate::data::{self, Dataset, MeanStd, make_batch};
use crate::evaluate::{Evaluation, Images, evaluate_sparse};
use crate::{Error, Result};

/// Pictures in each half of the gallery.
const GALLERY: usize = 6;
/// Bars of the histogram.
const BINS: usize = 24;
/// More classes than this make no table of confusions that anyone reads.
const MOST_CLASSES: usize = 40;

/// What an evaluation found of one image.
#[derive(Debug, Clone, Copy)]
struct Record {
    image: u32,
    label: u32,
    predicted: u32,
    macs: u64,
}

/// The adaptive model and what it does with the test images.
pub(super) struct Adaptive {
    pub(super) model: PreparedTransformer,
    test: Dataset,
    stats: MeanStd,
    device: Device,
    pub(super) evaluation: Evaluation,
    records: Vec<Record>,
    classes: ClassTable,
}

impl Adaptive {
    pub(super) fn evaluated(best: &Path, config: &TrainConfig, device: &Device) -> Result<Self> {
        let checkpoint = Checkpoint::load(best)?;
        let model = checkpoint.prepared(device)?;
        let test = data::load(&config.data, config.data_dir.as_deref())?.test;
        let normalization = checkpoint.config.normalization.as_ref();
        let stats = normalization.map_or_else(|| test.mean_std(), MeanStd::from);
        let indices: Vec<u32> = (0..test.len() as u32).collect();
        let images = Images {
            dataset: &test,
            indices: &indices,
            stats: &stats,
            batch_size: config.eval_batch_size,
            device,
        };
        let mut records = Vec::new();
        let mut classes = ClassTable::new(checkpoint.config.num_classes);
        let evaluation = evaluate_sparse(&model, &images, &mut |image| {
            classes.add(image.label, image.predicted, image.macs);
            records.push(Record {
                image: image.image,
                label: image.label,
                predicted: image.predicted,
                macs: image.macs,
            });
            Ok(())
        })?;
        Ok(Self {
            model,
            test,
            stats,
            device: device.clone(),
            evaluation,
            records,
            classes,
        })
    }

    fn config(&self) -> &ModelConfig {
        self.model.config()
    }

    pub(super) fn usage(&self, page: &mut Page) {
        page.heading("Usage of each block");
        page.paragraph(
            "The share of test images that run a sub-layer, and the mean share of heads and patch \
             tokens that they keep.",
        );
        let head = ["block", "tokens", "heads", "attention", "MLP"].map(String::from);
        let blocks = self.evaluation.usage.per_block.iter().enumerate();
        let rows: Vec<Vec<Cell>> = blocks
            .map(|(block, usage)| {
                let shares = [usage.tokens, usage.heads, usage.attention, usage.mlp];
                let shares = shares.map(|share| Cell::heat(format!("{share:.2}"), share));
                [vec![Cell::plain((block + 1).to_string())], shares.to_vec()].concat()
            })
            .collect();
        page.cells(&head, &rows);
    }

    fn class_name(&self, class: usize) -> String {
        let name = self.test.class_names().get(class);
        name.map_or_else(|| class.to_string(), String::clone)
    }

    pub(super) fn compute(&self, page: &mut Page) -> Result<()> {
        page.heading("Compute of each image");
        let macs: Vec<f64> = self.records.iter().map(|r| r.macs as f64 / 1e6).collect();
        let labels = Labels {
            x: "million MACs",
            y: "images",
        };
        page.charts(&[(histogram(&macs, BINS, labels)?, "Test images by their MACs")]);
        let dense = self.config().geometry().dense_macs() as f64;
        let table = &self.classes;
        let classes = 0..table.confusion().len();
        let found: Vec<(usize, f64, f64)> = classes
            .filter_map(|class| Some((class, table.top1(class)?, table.mean_macs(class)?)))
            .collect();
        let most = found.iter().map(|(_, _, macs)| *macs).fold(1.0, f64::max);
        let rows: Vec<Vec<Cell>> = found
            .into_iter()
            .map(|(class, top1, macs)| {
                vec![
                    Cell::plain(self.class_name(class)),
                    Cell::plain(table.images(class).to_string()),
                    Cell::plain(format!("{top1:.3}")),
                    Cell::heat(format!("{:.3} M", macs / 1e6), macs / most),
                    Cell::plain(format!("{:.3}", macs / dense)),
                ]
            })
            .collect();
        let head = [
            "class",
            "images",
            "top-1",
            "MACs per image",
            "of the plain model",
        ];
        page.cells(&head.map(String::from), &rows);
        Ok(())
    }

    pub(super) fn confusion(&self, page: &mut Page) {
        let classes = self.test.class_names().len();
        if self.classes.confusion().len() > MOST_CLASSES {
            return;
        }
        page.heading("Confusion");
        page.paragraph("Rows are classes, columns what the adaptive model says; images.");
        // A model may have more classes than the data: those are columns only.
        let said = self.classes.confusion().len();
        let names = (0..said).map(|class| self.class_name(class));
        let head: Vec<String> = [String::new()].into_iter().chain(names).collect();
        let rows: Vec<Vec<Cell>> = self
            .classes
            .confusion()
            .iter()
            .take(classes)
            .enumerate()
            .map(|(class, row)| {
                let all = row.iter().sum::<u64>().max(1) as f64;
                let cells = row
                    .iter()
                    .map(|n| Cell::heat(n.to_string(), *n as f64 / all));
                let name = Cell::plain(self.class_name(class));
                [name].into_iter().chain(cells).collect()
            })
            .collect();
        page.cells(&head, &rows);
    }

    pub(super) fn gallery(&self, page: &mut Page) -> Result<()> {
        if !matches!(self.config().in_chans, 1 | 3) {
            return Ok(());
        }
        let mut sorted = self.records.clone();
        sorted.sort_by_key(|record| (record.macs, record.image));
        let least: Vec<Record> = sorted.iter().take(GALLERY).copied().collect();
        let most: Vec<Record> = sorted.iter().rev().take(GALLERY).copied().collect();
        page.heading("Images that take the least compute, and the most");
        page.paragraph(
            "The image, then what each block keeps of it: dropped patches are pale. The bar below is \
             blue where attention runs and orange where the MLP does.",
        );
        for records in [least, most] {
            let indices: Vec<u32> = records.iter().map(|record| record.image).collect();
            let batch = make_batch(&self.test, &indices, None, &self.stats, &self.device)?;
            let mut workspace = Workspace::default();
            self.model.forward_sparse(&batch.images, &mut workspace)?;
            let pictures: Vec<(Vec<u8>, String)> = records
                .iter()
                .enumerate()
                .map(|(place, record)| {
                    Ok((self.drawn(place, record, &workspace)?, self.caption(record)))
                })
                .collect::<Result<_>>()?;
            page.gallery(&pictures);
        }
        Ok(())
    }

    /// The PNG file of an image that is at `place` of the batch that went through last.
    fn drawn(&self, place: usize, record: &Record, workspace: &Workspace) -> Result<Vec<u8>> {
        let config = self.config();
        let policy = workspace.policy();
        let kept: Vec<Vec<bool>> = (0..policy.depth())
            .map(|block| policy.tokens(block, place).to_vec())
            .collect();
        let drawn = Drawn {
            pixels: self.test.image(record.image as usize),
            size: config.img_size,
            grid: config.grid(),
            num_prefix_tokens: config.num_prefix_tokens(),
        };
        let image = draw_kept(&drawn, &policy.image_use(place), &kept);
        let mut png = Cursor::new(Vec::new());
        image
            .write_to(&mut png, image::ImageFormat::Png)
            .map_err(|error| Error::Input(format!("drawing an image: {error}")))?;
        Ok(png.into_inner())
    }

    fn caption(&self, record: &Record) -> String {
        let (label, predicted) = (
            self.class_name(record.label as usize),
            self.class_name(record.predicted as usize),
        );
        let said = if record.label == record.predicted {
            label
        } else {
            format!("{label}, taken for {predicted}")
        };
        let share = record.macs as f64 / self.config().geometry().dense_macs() as f64;
        format!("{said}: {share:.2} of the plain model's MACs")
    }
}
