//! `adavit throughput`: how fast a preset runs on this machine.

use adavit_train::{Throughput, Workload, peak_rss_bytes, select_device};
use anyhow::Result;
use serde_json::json;

use crate::Ended;
use crate::args::ThroughputArgs;
use crate::eval::set_threads;
use crate::output::{macs, print, print_json};
use crate::profile::{Row, profile};

/// Iterations that a profile adds up.
const PROFILED: u32 = 10;

/// One kind of work, measured.
struct Measured {
    found: Throughput,
    macs: u64,
    rows: Option<Vec<Row>>,
}

pub(crate) fn run(args: &ThroughputArgs) -> Result<Ended> {
    let threads = set_threads(args.machine.threads)?;
    let simd = adavit_kernels::simd_level()?;
    let name = args.machine.device.as_deref().unwrap_or("cpu");
    let device = select_device(name)?;
    let measure = |mut work: Workload| -> Result<Measured> {
        let found = work.measure(args.seconds)?;
        let rows = args
            .profile
            .then(|| profile(PROFILED, || Ok(work.run()?)))
            .transpose()?;
        Ok(Measured {
            found,
            macs: work.macs(),
            rows,
        })
    };
    let (preset, batch, seed) = (&args.preset, args.batch, args.seed);
    // Training comes first: its memory is measured in a fresh process.
    let train = args
        .train
        .then(|| measure(Workload::training(preset, batch, seed, &device)?))
        .transpose()?;
    let dense = measure(Workload::inference(preset, batch, seed, &device)?)?;
    if args.machine.json {
        let step_bytes = train.as_ref().map(|train| train.found.grown_bytes);
        let speed = |measured: &Measured| {
            json!({
                "images_per_s": measured.found.images_per_s,
                "macs": measured.macs,
                "share_of_peak": measured.found.share_of_peak(),
                "profile": measured.rows,
            })
        };
        print_json(&json!({
            "preset": preset,
            "batch": batch,
            "threads": threads,
            "simd": simd,
            "device": name,
            "dense": speed(&dense),
            "train": train.as_ref().map(speed),
            "peak_gflops": dense.found.peak_flops / 1e9,
            "step_rss_bytes": step_bytes,
            "peak_rss_bytes": peak_rss_bytes(),
        }))?;
        return Ok(Ended::Done);
    }
    let mut lines = vec![format!(
        "{preset}, batch {batch}, {threads} threads, {simd}, {name}; {} per image, product peak \
         {:.0} GFLOP/s",
        macs(dense.macs as f64),
        dense.found.peak_flops / 1e9,
    )];
    if let Some(train) = &train {
        lines.extend(table("training", train));
    }
    lines.extend(table("inference", &dense));
    print(&lines.join("\n"))?;
    Ok(Ended::Done)
}

/// What was measured, for people.
fn table(what: &str, measured: &Measured) -> Vec<String> {
    let found = &measured.found;
    let memory = found.grown_bytes.map_or(String::new(), |bytes| {
        format!("   +{:.0} MB", bytes as f64 / 1e6)
    });
    let line = format!(
        "{what:<10} {:>9.1} images/s   {:.2} of the product peak{memory}",
        found.images_per_s,
        found.share_of_peak(),
    );
    let mut lines = vec![line];
    let Some(rows) = &measured.rows else {
        return lines;
    };
    lines.push(format!(
        "  {:<26}{:>10}{:>8}{:>10}",
        "operation", "ms", "share", "GFLOP/s"
    ));
    for row in rows {
        let gflops = row
            .gflops
            .map_or(String::new(), |gflops| format!("{gflops:.0}"));
        lines.push(format!(
            "  {:<26}{:>10.3}{:>8.3}{gflops:>10}",
            row.operation, row.ms, row.share
        ));
    }
    lines
}
