//! The tables of a sweep, in Markdown.

use std::fmt::Write as _;

use adavit_train::Machine;

use crate::sweep::compare::PairedComparison;
use crate::sweep::config::SweepConfig;
use crate::sweep::names;
use crate::sweep::point::{BATCHES, ModelKind, Point};

/// Why some models have no time.
const REDUCED_NOTE: &str = "EViT and ToMe have no times: the prepared path, which every other model \
                            runs, has no token reduction.\n";

/// `efficiency.md`: each table under a heading of the second level; empty tables are left out.
pub(super) fn tables(
    config: &SweepConfig,
    points: &[Point],
    comparisons: &[PairedComparison],
) -> String {
    let sections = [
        ("Models", models(config, points)),
        ("Comparisons", compared(comparisons)),
        ("Seeds", seeds(config, points)),
        ("Variants", variants(points)),
    ];
    let mut text = String::from("# Efficiency\n");
    for (title, table) in sections {
        if !table.is_empty() {
            let _ = write!(text, "\n## {title}\n\n{table}");
        }
    }
    text
}

/// A table; an empty text without lines.
fn table(columns: &[&str], lines: &[Vec<String>]) -> String {
    if lines.is_empty() {
        return String::new();
    }
    let rule = vec!["---".to_string(); columns.len()];
    let head: Vec<String> = columns.iter().map(ToString::to_string).collect();
    let mut text = String::new();
    for cells in [&head, &rule].into_iter().chain(lines) {
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    }
    text
}

/// Every model of the first seed, except the variants.
fn models(config: &SweepConfig, points: &[Point]) -> String {
    let columns = [
        "model",
        "top-1",
        "MACs per image (10th, 90th percentile)",
        "share",
        "images/s, batch 1",
        "time saved",
        "images/s, batch 32",
        "time saved",
        "training, s",
        "commit",
    ];
    let shown: Vec<&Point> = points
        .iter()
        .filter(|point| point.kind != ModelKind::Variant && point.seed == config.seeds[0])
        .collect();
    let lines: Vec<Vec<String>> = shown
        .iter()
        .map(|point| {
            let mut cells = vec![
                label(config, point),
                format!("{:.4}", point.top1),
                macs(point),
                format!("{:.3}", point.macs_share),
            ];
            for batch in BATCHES {
                let speed = point.speed(batch);
                let cell = |value: Option<String>| value.unwrap_or_else(|| "-".into());
                cells.push(cell(speed.map(|s| format!("{:.0}", s.images_per_s))));
                cells.push(cell(speed.map(|s| format!("{:.2}", s.time_saved))));
            }
            cells.push(match point.train_seconds {
                0.0 => "-".into(),
                seconds => format!("{seconds:.0}"),
            });
            cells.push(format!("`{}`", point.commit));
            cells
        })
        .collect();
    if lines.is_empty() {
        return String::new();
    }
    let mut text = machines(&shown);
    if shown.iter().any(|point| point.kind.reduces_tokens()) {
        text += REDUCED_NOTE;
    }
    format!("{text}\n{}", table(&columns, &lines))
}

/// The machines of the speeds, a line for each.
fn machines(points: &[&Point]) -> String {
    let mut found: Vec<(&Machine, Vec<&str>)> = Vec::new();
    for point in points.iter().filter(|point| !point.speeds.is_empty()) {
        let known = found.iter_mut().find(|(of, _)| **of == point.machine);
        match known {
            Some((_, names)) => names.push(&point.name),
            None => found.push((&point.machine, vec![&point.name])),
        }
    }
    let several = found.len() > 1;
    let mut text = String::new();
    for (machine, names) in found {
        let names = several.then(|| format!(": {}", names.join(", ")));
        let _ = writeln!(
            text,
            "Speeds measured on {machine}{}.",
            names.unwrap_or_default()
        );
    }
    text
}

fn label(config: &SweepConfig, point: &Point) -> String {
    let title = point.kind.title();
    match (point.kind, point.budget) {
        (ModelKind::Dense, _) | (_, None) => title.into(),
        (ModelKind::Calibrated, Some(budget)) => {
            let trained = config.calibrated_from(budget);
            format!("{title} from {trained} to {budget}")
        }
        (ModelKind::Smaller, Some(_)) => {
            let name = point.name.strip_prefix(&names::smaller(""));
            format!("smaller dense model {}", name.unwrap_or(&point.name))
        }
        (_, Some(budget)) => format!("{title}, {budget}"),
    }
}

fn macs(point: &Point) -> String {
    let millions = |macs: f64| macs / 1e6;
    let mean = format!("{:.2} M", millions(point.macs));
    if point.macs_p10 == point.macs_p90 {
        return mean;
    }
    let [low, high] = [point.macs_p10, point.macs_p90].map(|macs| millions(macs as f64));
    format!("{mean} ({low:.2}, {high:.2})")
}

fn compared(comparisons: &[PairedComparison]) -> String {
    let columns = [
        "model",
        "against",
        "budget",
        "seeds",
        "MACs over the other's",
        "difference of top-1",
        "95 % interval",
        "verdict",
    ];
    let lines: Vec<Vec<String>> = comparisons
        .iter()
        .map(|found| {
            vec![
                found.model.clone(),
                found.against.clone(),
                found.budget.to_string(),
                found.seeds.to_string(),
                format!("{:.3}", found.macs_ratio),
                format!("{:+.4}", found.difference),
                format!("{:+.4} to {:+.4}", found.low, found.high),
                found.verdict.name().into(),
            ]
        })
        .collect();
    table(&columns, &lines)
}

/// Top-1 of each seed that has all its models, and their mean; nothing where there is one seed.
fn seeds(config: &SweepConfig, points: &[Point]) -> String {
    let top1 = |name: &str| points.iter().find(|p| p.name == name).map(|p| p.top1);
    let models = |seed: u64| -> Option<Vec<f64>> {
        let adaptive = config.budgets.iter();
        let adaptive = adaptive.map(move |&budget| names::adaptive(budget, seed));
        let names: Vec<String> = std::iter::once(names::dense(seed))
            .chain(adaptive)
            .collect();
        names.iter().map(|name| top1(name)).collect()
    };
    let complete: Vec<(u64, Vec<f64>)> = config
        .seeds
        .iter()
        .filter_map(|&seed| Some((seed, models(seed)?)))
        .collect();
    if complete.len() < 2 {
        return String::new();
    }
    let row = |name: String, values: &[f64]| -> Vec<String> {
        let cells = values.iter().map(|value| format!("{value:.4}"));
        std::iter::once(name).chain(cells).collect()
    };
    let mean: Vec<f64> = (0..=config.budgets.len())
        .map(|model| complete.iter().map(|(_, of)| of[model]).sum::<f64>() / complete.len() as f64)
        .collect();
    let mut lines: Vec<Vec<String>> = complete
        .iter()
        .map(|(seed, values)| row(seed.to_string(), values))
        .collect();
    lines.push(row("mean".into(), &mean));
    let budgets = config.budgets.iter().map(|b| format!("adaptive, {b}"));
    let columns: Vec<String> = ["seed".into(), "dense".into()]
        .into_iter()
        .chain(budgets)
        .collect();
    let columns: Vec<&str> = columns.iter().map(String::as_str).collect();
    table(&columns, &lines)
}

fn variants(points: &[Point]) -> String {
    let columns = [
        "variant",
        "top-1",
        "MACs per image (10th, 90th percentile)",
        "share",
        "tokens",
        "heads",
        "blocks",
        "training, s",
        "commit",
    ];
    let shown = points
        .iter()
        .filter(|point| point.kind == ModelKind::Variant);
    let lines: Vec<Vec<String>> = shown
        .map(|point| {
            let name = point.name.strip_prefix(&names::variant(""));
            let usage = point.usage.as_ref();
            let kept = |of: Option<f64>| of.map_or_else(|| "-".into(), |kept| format!("{kept:.3}"));
            vec![
                name.unwrap_or(&point.name).into(),
                format!("{:.4}", point.top1),
                macs(point),
                format!("{:.3}", point.macs_share),
                kept(usage.map(|usage| usage.tokens)),
                kept(usage.map(|usage| usage.heads)),
                kept(usage.map(|usage| usage.blocks)),
                format!("{:.0}", point.train_seconds),
                format!("`{}`", point.commit),
            ]
        })
        .collect();
    table(&columns, &lines)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::sweep::point::Speed;

    fn point(name: &str, kind: ModelKind, budget: Option<f64>, top1: f64) -> Point {
        let speed = |batch| Speed {
            batch,
            images_per_s: 1e3 * batch as f64,
            time_saved: 1.5,
        };
        Point {
            name: name.into(),
            kind,
            seed: u64::from(name.ends_with("s1")),
            budget,
            top1,
            macs: 2e6,
            macs_p10: 1_500_000,
            macs_p90: 2_500_000,
            macs_share: 0.5,
            speeds: BATCHES.map(speed).into(),
            machine: Machine {
                cpu: "some cpu".into(),
                simd: "avx2".into(),
                device: "cpu".into(),
                threads: 1,
            },
            speeds_commit: "abc".into(),
            usage: None,
            checkpoint: PathBuf::new(),
            train_seconds: 0.0,
            commit: "abc".into(),
            draws: 1,
            right: "1".into(),
        }
    }

    fn config(seeds: &[u64]) -> SweepConfig {
        SweepConfig {
            seeds: seeds.into(),
            ..SweepConfig::default()
        }
    }

    #[test]
    fn nothing_measured_gives_no_table() {
        assert_eq!(tables(&config(&[0]), &[], &[]), "# Efficiency\n");
    }

    #[test]
    fn one_seed_has_its_models_alone() {
        let points = [
            point("dense-s0", ModelKind::Dense, None, 0.9),
            point(
                "random-tuned-0.5-s0",
                ModelKind::RandomTuned,
                Some(0.5),
                0.8,
            ),
            point("smaller-c8", ModelKind::Smaller, Some(0.5), 0.7),
            point(
                "calibrated-0.6-from-0.5-s0",
                ModelKind::Calibrated,
                Some(0.6),
                0.6,
            ),
        ];
        let text = tables(&config(&[0]), &points, &[]);
        assert_eq!(text.matches("## ").count(), 1);
        assert!(text.contains("\nSpeeds measured on some cpu, avx2 kernels, cpu, 1 thread.\n\n|"));
        let cells = "2.00 M (1.50, 2.50) | 0.500 | 1000 | 1.50 | 32000 | 1.50 | - | `abc` |";
        for line in [
            format!("| dense | 0.9000 | {cells}"),
            format!("| random policy, fine-tuned, 0.5 | 0.8000 | {cells}"),
            format!("| smaller dense model c8 | 0.7000 | {cells}"),
            format!("| adaptive, thresholds moved from 0.5 to 0.6 | 0.6000 | {cells}"),
        ] {
            assert!(text.lines().any(|other| other == line), "{line}\n{text}");
        }
    }

    #[test]
    fn token_reduction_has_no_times_and_a_note_says_why() {
        let mut evit = point("evit-0.5-s0", ModelKind::Evit, Some(0.5), 0.8);
        evit.speeds.clear();
        evit.machine.threads = 2;
        let points = [point("dense-s0", ModelKind::Dense, None, 0.9), evit];
        let text = tables(&config(&[0]), &points, &[]);
        assert!(
            text.contains("1 thread.\nEViT and ToMe have no times: "),
            "{text}"
        );
        let line =
            "| EViT, 0.5 | 0.8000 | 2.00 M (1.50, 2.50) | 0.500 | - | - | - | - | - | `abc` |";
        assert!(text.lines().any(|other| other == line), "{text}");
        assert!(!tables(&config(&[0]), &points[..1], &[]).contains("EViT"));
    }

    #[test]
    fn machines_are_told_apart() {
        let mut points = [
            point("dense-s0", ModelKind::Dense, None, 0.9),
            point("adaptive-0.5-s0", ModelKind::Adaptive, Some(0.5), 0.8),
        ];
        points[1].machine.threads = 2;
        let text = tables(&config(&[0]), &points, &[]);
        assert!(text.contains("1 thread: dense-s0.\n"));
        assert!(text.contains("2 threads: adaptive-0.5-s0.\n"));
    }

    #[test]
    fn seeds_have_a_mean_of_those_that_are_complete() {
        let mut points = vec![
            point("dense-s0", ModelKind::Dense, None, 0.9),
            point("adaptive-0.5-s0", ModelKind::Adaptive, Some(0.5), 0.8),
            point("dense-s1", ModelKind::Dense, None, 0.92),
        ];
        let config = config(&[0, 1]);
        assert!(!tables(&config, &points, &[]).contains("## Seeds"));
        points.push(point(
            "adaptive-0.5-s1",
            ModelKind::Adaptive,
            Some(0.5),
            0.86,
        ));
        let text = tables(&config, &points, &[]);
        let expected = "## Seeds\n\n| seed | dense | adaptive, 0.5 |\n| --- | --- | --- |\n\
                        | 0 | 0.9000 | 0.8000 |\n| 1 | 0.9200 | 0.8600 |\n\
                        | mean | 0.9100 | 0.8300 |\n";
        assert!(text.ends_with(expected), "{text}");
    }
}
