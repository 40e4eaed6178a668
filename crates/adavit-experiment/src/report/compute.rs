//! What the adaptive model spends on the test images, block by block and class by class.

use std::path::Path;

use crate::error::Result;
use crate::report::adaptive::AdaptiveResults;
use crate::report::chart::figure::histogram;
use crate::report::chart::frame::Labels;
use crate::report::html::{Cell, Page, Table, TableKind};
use crate::report::statistics::rank_correlation;

/// Bars of the histogram.
const BINS: usize = 24;
/// Pairs of classes that are named.
const CONFUSED: usize = 5;
/// More classes than this make no table of confusions that anyone reads.
const MOST_CLASSES: usize = 40;

/// Writes what each block uses.
pub(super) fn usage(page: &mut Page, adaptive: &AdaptiveResults) {
    page.heading("Usage of each block");
    page.paragraph(
        "The share of test images for which attention and the MLP of a block run, and the mean \
         share of patch tokens and heads that it keeps.",
    );
    let blocks = adaptive.evaluation.usage.per_block.iter().enumerate();
    let rows = blocks.map(|(block, usage)| {
        let shares = [usage.tokens, usage.heads, usage.attention, usage.mlp];
        let shares = shares.map(|share| Cell::heat(format!("{share:.2}"), share));
        [vec![Cell::text((block + 1).to_string())], shares.to_vec()].concat()
    });
    page.table(&Table {
        rows: rows.collect(),
        head: head(&["block", "tokens", "heads", "attention", "MLP"]),
        kind: TableKind::Numbers,
    });
}

/// Writes the MACs of the images and of each class.
pub(super) fn compute(page: &mut Page, adaptive: &AdaptiveResults, run: &Path) -> Result<()> {
    page.heading("Compute of each image");
    let macs = adaptive.macs();
    let millions: Vec<f64> = macs.iter().map(|macs| macs / 1e6).collect();
    let labels = Labels {
        x: "million MACs",
        y: "images",
    };
    page.paragraph(&format!(
        "An image takes {:.3} M MACs on average, and {:.3} M by the dense model.",
        adaptive.evaluation.macs / 1e6,
        adaptive.dense_macs() / 1e6
    ));
    let caption = "Test images by their MACs".into();
    page.charts(&[(histogram(&millions, BINS, labels), caption)]);
    page.paragraph(&format!(
        "Rank correlation of an image's MACs with the dense model's loss on it: {:.3}.",
        rank_correlation(&macs, &adaptive.dense_losses(run)?)
    ));
    classes(page, adaptive);
    Ok(())
}

fn classes(page: &mut Page, adaptive: &AdaptiveResults) {
    let dense = adaptive.dense_macs();
    let table = &adaptive.classes;
    let classes = 0..table.confusion().len();
    let found: Vec<(usize, f64, f64)> = classes
        .filter_map(|class| Some((class, table.top1(class)?, table.mean_macs(class)?)))
        .collect();
    let most = found.iter().map(|(_, _, macs)| *macs).fold(1.0, f64::max);
    let rows = found.into_iter().map(|(class, top1, macs)| {
        vec![
            Cell::text(adaptive.class_name(class)),
            Cell::text(table.images(class).to_string()),
            Cell::text(format!("{top1:.3}")),
            Cell::heat(format!("{:.3} M", macs / 1e6), macs / most),
            Cell::text(format!("{:.3}", macs / dense)),
        ]
    });
    page.table(&Table {
        rows: rows.collect(),
        head: head(&[
            "class",
            "images",
            "recall (top-1 of the class)",
            "MACs per image",
            "share of the dense model's",
        ]),
        kind: TableKind::Numbers,
    });
}

/// Writes which classes are confused.
pub(super) fn confusion(page: &mut Page, adaptive: &AdaptiveResults) {
    let confusion = adaptive.classes.confusion();
    page.heading("Confusion");
    most_confused(page, adaptive);
    if confusion.len() > MOST_CLASSES {
        return;
    }
    page.paragraph("Rows are labels, columns are the adaptive model's predictions, in images.");
    // A model may have more classes than the data: those are columns only.
    let predicted = (0..confusion.len()).map(|class| adaptive.class_name(class));
    let classes = adaptive.num_classes_of_data();
    let rows = confusion.iter().take(classes).enumerate();
    let rows = rows.map(|(class, row)| {
        let all = row.iter().sum::<u64>().max(1) as f64;
        let cells = row.iter();
        let cells = cells.map(|n| Cell::heat(n.to_string(), *n as f64 / all));
        let name = Cell::text(adaptive.class_name(class));
        [name].into_iter().chain(cells).collect()
    });
    page.table(&Table {
        rows: rows.collect(),
        head: ["label".to_string()].into_iter().chain(predicted).collect(),
        kind: TableKind::Numbers,
    });
}

/// Names the pairs of classes that are confused most.
fn most_confused(page: &mut Page, adaptive: &AdaptiveResults) {
    let table = &adaptive.classes;
    let pairs = table.confused(CONFUSED).into_iter().map(|pair| {
        format!(
            "{} as {} ({} of {} images)",
            adaptive.class_name(pair.label),
            adaptive.class_name(pair.predicted),
            pair.images,
            table.images(pair.label)
        )
    });
    let pairs: Vec<String> = pairs.collect();
    page.paragraph(&if pairs.is_empty() {
        "Every image is predicted as its class.".to_owned()
    } else {
        format!("Confused most: {}.", pairs.join("; "))
    });
}

fn head(names: &[&str]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}
