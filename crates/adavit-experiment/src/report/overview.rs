//! What a run found on the test images, in one table and one chart.

use adavit_train::{MetricsRow, Stage, Summary, TrainConfig};

use crate::report::adaptive::AdaptiveResults;
use crate::report::chart::axis::Values;
use crate::report::chart::figure::{Chart, Form, Series};
use crate::report::chart::frame::Labels;
use crate::report::html::{Cell, Page, Table, TableKind};

const RANDOM: &str = "random policy";
const RANDOM_PER_BLOCK: &str = "random policy, usage of each block";

/// Writes how far the run is, what it ran on, and what its models reach.
pub(super) fn overview(page: &mut Page, summary: Option<&Summary>, rows: &[MetricsRow]) {
    let Some(summary) = summary else {
        page.paragraph(if rows.is_empty() {
            "No epoch is finished yet."
        } else {
            "The run is not finished: the report covers the epochs so far."
        });
        return;
    };
    page.paragraph(&format!(
        "Commit {}, {} threads, {:.0} s in all, {:.0} training images per second. MACs are \
         multiply-adds of one image (1 MAC = 2 FLOPs).",
        summary.commit, summary.threads, summary.seconds, summary.train_images_per_s
    ));
    page.heading("Test images");
    results(page, summary);
}

fn results(page: &mut Page, summary: &Summary) {
    let dense = summary.dense.macs as f64;
    let row = |name: &str, top1: f64, macs: f64, images_per_s: Option<f64>| {
        vec![
            Cell::text(name),
            Cell::text(format!("{top1:.4}")),
            Cell::text(format!("{:.3} M", macs / 1e6)),
            Cell::text(format!("{:.3}", macs / dense)),
            Cell::text(images_per_s.map_or_else(|| "-".into(), |speed| format!("{speed:.0}"))),
        ]
    };
    let (adaptive, random) = (&summary.adaptive, &summary.random_policy);
    let imitated = &summary.random_policy_per_block;
    let dense_speed = Some(summary.dense.images_per_s);
    let head = [
        "model",
        "top-1",
        "MACs per image",
        "share of the dense model's",
        "images/s",
    ];
    page.table(&Table {
        head: head.map(String::from).to_vec(),
        rows: vec![
            row("dense", summary.dense.top1, dense, dense_speed),
            row(
                "adaptive",
                adaptive.top1,
                adaptive.macs,
                adaptive.images_per_s,
            ),
            row(RANDOM, random.top1, random.macs, None),
            row(RANDOM_PER_BLOCK, imitated.top1, imitated.macs, None),
        ],
        kind: TableKind::Numbers,
    });
}

/// Writes accuracy against compute.
pub(super) fn trade_off(
    page: &mut Page,
    adaptive: &AdaptiveResults,
    config: &TrainConfig,
    summary: Option<&Summary>,
    rows: &[MetricsRow],
) {
    page.heading("Accuracy against compute");
    let dense_macs = adaptive.dense_macs();
    let model = |name: String, macs_share: f64, top1: f64| Series {
        name,
        points: vec![(macs_share, top1)],
        form: Form::Marks,
    };
    let found = &adaptive.evaluation;
    let name = config.targets.map_or_else(
        || format!("adaptive model, budget {}", config.budget),
        |_| "adaptive model".into(),
    );
    let mut all = vec![model(name, found.macs_share, found.top1)];
    if let Some(summary) = summary {
        let name = format!("dense model ({})", config.preset);
        all.push(model(name, 1.0, summary.dense.top1));
        for (name, random) in [
            (RANDOM, &summary.random_policy),
            (RANDOM_PER_BLOCK, &summary.random_policy_per_block),
        ] {
            all.push(model(name.into(), random.macs / dense_macs, random.top1));
        }
    }
    let epochs = rows.iter().filter(|row| row.stage == Stage::Adaptive);
    let epochs = epochs.map(|row| (row.held_out_macs_share, row.held_out_top1));
    all.push(Series {
        name: "epochs of the adaptive model, held-out images".into(),
        points: epochs.collect(),
        form: Form::SmallMarks,
    });
    let chart = Chart {
        series: &all,
        labels: Labels {
            x: "MACs, as a share of the dense model's",
            y: "top-1",
        },
        x: Values::Real,
        note: None,
    };
    page.charts(&[(chart.figure(), "Top-1 against MACs, test images".into())]);
}
