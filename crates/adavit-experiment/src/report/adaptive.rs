//! What the adaptive model does with the test images: usage, compute, confusions, and pictures.

use std::path::Path;

use adavit_data::{Dataset, Normalization, make_batch};
use adavit_model::{Checkpoint, ModelConfig, PreparedTransformer, Workspace};
use adavit_train::{ClassTable, Evaluation, Evaluator, Images, TrainConfig};
use candle_core::Device;
use image::RgbImage;

use crate::error::Result;
use crate::report::charts::{Labels, histogram};
use crate::report::html::{Cell, Page};
use crate::report::overlay::{Drawn, draw_kept, png};
use crate::report::statistics::{normalization_for, plain_losses, rank_correlation};

/// Pictures in each half of the gallery.
const GALLERY: usize = 6;
/// Bars of the histogram.
const BINS: usize = 24;
/// More classes than this make no table of confusions that anyone reads.
const MOST_CLASSES: usize = 40;

/// What an evaluation found of one image.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record {
    image: u32,
    label: u32,
    predicted: u32,
    macs: u64,
}

/// Whether images of a model can be drawn: grey ones, and those in colour.
pub(super) fn drawable(config: &ModelConfig) -> bool {
    matches!(config.in_chans, 1 | 3)
}

/// The adaptive model and what it does with the test images.
pub(super) struct AdaptiveResults<'d> {
    pub(super) model: PreparedTransformer,
    test: &'d Dataset,
    normalization: Normalization,
    device: Device,
    batch_size: usize,
    pub(super) evaluation: Evaluation,
    records: Vec<Record>,
    pub(super) classes: ClassTable,
}

impl<'d> AdaptiveResults<'d> {
    /// An adaptive model, on the test images of its run.
    pub(super) fn evaluated(
        checkpoint: &Checkpoint,
        config: &TrainConfig,
        test: &'d Dataset,
        device: &Device,
    ) -> Result<Self> {
        let model = checkpoint.prepared(device)?;
        let normalization = normalization_for(&checkpoint.config, test);
        let indices = test.indices();
        let images = Images {
            dataset: test,
            indices: &indices,
            normalization: &normalization,
            batch_size: config.eval_batch_size,
            device,
        };
        let mut records = Vec::new();
        let mut classes = ClassTable::new(checkpoint.config.num_classes);
        let mut evaluator = Evaluator::prepared(&model, &images)?;
        for batch in &mut evaluator {
            for image in batch? {
                classes.add(image.label, image.predicted, image.macs);
                records.push(Record {
                    image: image.image,
                    label: image.label,
                    predicted: image.predicted,
                    macs: image.macs,
                });
            }
        }
        let evaluation = evaluator.finish()?;
        Ok(Self {
            model,
            test,
            normalization,
            device: device.clone(),
            batch_size: config.eval_batch_size,
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

    pub(super) fn class_name(&self, class: usize) -> String {
        let name = self.test.class_names().get(class);
        name.map_or_else(|| class.to_string(), String::clone)
    }

    pub(super) fn compute(&self, page: &mut Page, run: &Path) -> Result<()> {
        page.heading("Compute of each image");
        let macs: Vec<f64> = self.macs().into_iter().map(|macs| macs / 1e6).collect();
        let labels = Labels {
            x: "million MACs",
            y: "images",
        };
        page.charts(&[(histogram(&macs, BINS, labels)?, "Test images by their MACs")]);
        page.paragraph(&format!(
            "Rank correlation of an image's MACs with the plain model's loss on it: {:.3}.",
            rank_correlation(&self.macs(), &self.plain_losses(run)?)
        ));
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
        if !drawable(self.config()) {
            return Ok(());
        }
        page.heading("Images that take the least compute, and the most");
        page.paragraph(
            "The image, then what each block keeps of it: dropped patches are pale. The bar below is \
             blue where attention runs and orange where the MLP does.",
        );
        let (least, most) = self.extremes(GALLERY, &self.macs());
        for records in [least, most] {
            let pictures: Vec<(Vec<u8>, String)> = self
                .drawn(&records)?
                .into_iter()
                .map(|(picture, caption)| Ok((png(&picture)?, caption)))
                .collect::<Result<_>>()?;
            page.gallery(&pictures);
        }
        Ok(())
    }

    /// Multiply-adds, image by image.
    pub(super) fn macs(&self) -> Vec<f64> {
        let records = self.records.iter();
        records.map(|record| record.macs as f64).collect()
    }

    /// The images that have the least of something, and those that have the most, of what `values`
    /// says of each image.
    pub(super) fn extremes(&self, count: usize, values: &[f64]) -> (Vec<Record>, Vec<Record>) {
        extremes(&self.records, count, values)
    }

    /// The pictures of some images with what is kept of them, and what they show.
    pub(super) fn drawn(&self, records: &[Record]) -> Result<Vec<(RgbImage, String)>> {
        let indices: Vec<u32> = records.iter().map(|record| record.image).collect();
        let batch = make_batch(self.test, &indices, None, &self.normalization, &self.device)?;
        let mut workspace = Workspace::default();
        self.model.forward_sparse(&batch.images, &mut workspace)?;
        let pictures = records.iter().enumerate();
        let pictures = pictures.map(|(place, record)| {
            let picture = self.picture(place, record, &workspace);
            (picture, self.caption(record))
        });
        Ok(pictures.collect())
    }

    /// The picture of an image that is at `place` of the batch that went through last.
    fn picture(&self, place: usize, record: &Record, workspace: &Workspace) -> RgbImage {
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
        draw_kept(&drawn, &policy.image_use(place), &kept)
    }

    /// The plain model's loss, image by image.
    pub(super) fn plain_losses(&self, run: &Path) -> Result<Vec<f64>> {
        let how = (self.batch_size, &self.device);
        plain_losses(&run.join("dense"), self.test, how)
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

/// The records of the least values, least first, and of the greatest, greatest first.
fn extremes(records: &[Record], count: usize, values: &[f64]) -> (Vec<Record>, Vec<Record>) {
    let mut sorted: Vec<(f64, Record)> = values
        .iter()
        .copied()
        .zip(records.iter().copied())
        .collect();
    sorted.sort_by(|(x, a), (y, b)| x.total_cmp(y).then(a.image.cmp(&b.image)));
    let records = sorted.iter().map(|(_, record)| *record);
    let least = records.clone().take(count).collect();
    let most = records.rev().take(count).collect();
    (least, most)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_come_first_of_the_least_and_the_greatest_of_the_greatest() {
        let record = |image| Record {
            image,
            label: 0,
            predicted: 0,
            macs: 1,
        };
        let records = [3, 1, 2, 0].map(record);
        let (least, most) = extremes(&records, 2, &[0.5, 0.1, 0.9, 0.1]);
        let images = |records: Vec<Record>| -> Vec<u32> {
            records.iter().map(|record| record.image).collect()
        };
        assert_eq!((images(least), images(most)), (vec![0, 1], vec![2, 3]));
    }
}
