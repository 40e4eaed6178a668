//! How the training went, and what it came to.

use adavit_train::{MetricsRow, Stage, Summary, TrainConfig};

use crate::error::Result;
use crate::report::adaptive::AdaptiveResults;
use crate::report::charts::{Labels, Series, dots, lines};
use crate::report::html::Page;

pub(super) fn overview(
    page: &mut Page,
    config: &TrainConfig,
    summary: Option<&Summary>,
    empty: bool,
) {
    page.paragraph(&format!(
        "{} on {}, seed {}, batches of {}.",
        config.preset, config.data, config.seed, config.batch_size
    ));
    let Some(summary) = summary else {
        page.paragraph(if empty {
            "No epoch is finished yet."
        } else {
            "The run is not finished: what follows is of the epochs so far."
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
            name.to_string(),
            format!("{top1:.4}"),
            format!("{:.3} M", macs / 1e6),
            format!("{:.3}", macs / dense),
            images_per_s.map_or_else(|| "-".into(), |speed| format!("{speed:.0}")),
        ]
    };
    let head = [
        "model",
        "top-1",
        "MACs per image",
        "of the plain model",
        "images/s",
    ];
    let (adaptive, random) = (&summary.adaptive, &summary.random_policy);
    let imitated = &summary.random_policy_per_block;
    page.table(
        &head.map(String::from),
        &[
            row(
                "plain",
                summary.dense.top1,
                dense,
                Some(summary.dense.images_per_s),
            ),
            row(
                "adaptive",
                adaptive.top1,
                adaptive.macs,
                adaptive.images_per_s,
            ),
            row("random policy", random.top1, random.macs, None),
            row(
                "random, usage of each block",
                imitated.top1,
                imitated.macs,
                None,
            ),
        ],
    );
}

pub(super) fn curves(page: &mut Page, rows: &[MetricsRow]) -> Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    page.heading("Training");
    let (dense, adaptive) = (Stage::Dense, Stage::Adaptive);
    let loss = [
        series(rows, dense, "dense", |row| row.loss),
        series(rows, adaptive, "adaptive", |row| row.loss),
    ];
    let accuracy = [
        series(rows, dense, "dense, training", |row| row.train_top1),
        series(rows, adaptive, "adaptive, training", |row| row.train_top1),
        series(rows, dense, "dense, held out", |row| row.held_out_top1),
        series(rows, adaptive, "adaptive, held out", |row| {
            row.held_out_top1
        }),
    ];
    let usage = [
        series(rows, adaptive, "MACs", |row| row.held_out_macs_share),
        series(rows, adaptive, "tokens", |row| row.tokens),
        series(rows, adaptive, "heads", |row| row.heads),
        series(rows, adaptive, "sub-layers", |row| row.blocks),
    ];
    let mut charts = Vec::new();
    for (series, y, caption) in [
        (
            &loss[..],
            "loss",
            "Loss, the mean over each epoch's training images",
        ),
        (
            &accuracy,
            "top-1",
            "Accuracy on training batches and on the held-out images",
        ),
        (
            &usage,
            "share",
            "What the adaptive model keeps of the held-out images, and its MACs over the plain model's",
        ),
    ] {
        let drawn = series.iter().filter(|series| !series.points.is_empty());
        let drawn: Vec<Series> = drawn.cloned().collect();
        if !drawn.is_empty() {
            charts.push((lines(&drawn, Labels { x: "epoch", y })?, caption));
        }
    }
    page.charts(&charts);
    Ok(())
}

/// A value of each epoch of a stage, over the epochs of both stages.
fn series(rows: &[MetricsRow], stage: Stage, name: &str, value: fn(&MetricsRow) -> f64) -> Series {
    let before = match stage {
        Stage::Dense => 0,
        _ => rows.iter().filter(|row| row.stage == Stage::Dense).count(),
    };
    let of_stage = rows.iter().filter(|row| row.stage == stage);
    Series {
        name: name.into(),
        points: of_stage
            .map(|row| ((before as u64 + row.epoch) as f64, value(row)))
            .collect(),
    }
}

pub(super) fn trade_off(
    page: &mut Page,
    adaptive: &AdaptiveResults,
    summary: Option<&Summary>,
    rows: &[MetricsRow],
) -> Result<()> {
    page.heading("Accuracy against compute");
    let dense_macs = adaptive.model.config().geometry().dense_macs() as f64;
    let series = |name: &str, points: Vec<(f64, f64)>| Series {
        name: name.into(),
        points,
    };
    let found = &adaptive.evaluation;
    let epochs = rows.iter().filter(|row| row.stage == Stage::Adaptive);
    let epochs = epochs.map(|row| (row.held_out_macs_share, row.held_out_top1));
    let mut all = vec![
        series("adaptive, epochs on held-out images", epochs.collect()),
        series("adaptive", vec![(found.macs_share, found.top1)]),
    ];
    if let Some(summary) = summary {
        let (random, imitated) = (&summary.random_policy, &summary.random_policy_per_block);
        all.push(series("plain", vec![(1.0, summary.dense.top1)]));
        all.push(series(
            "random policy",
            vec![(random.macs / dense_macs, random.top1)],
        ));
        all.push(series(
            "random, usage of each block",
            vec![(imitated.macs / dense_macs, imitated.top1)],
        ));
    }
    let labels = Labels {
        x: "MACs over those of the plain model",
        y: "top-1",
    };
    page.charts(&[(
        dots(&all, labels)?,
        "Top-1 against MACs, on the test images where nothing else is said",
    )]);
    Ok(())
}
