//! `adavit throughput`: how fast a preset runs on this machine.

use adavit_experiment::measure::{
    AdaptiveWorkload, Keep, Realised, Throughput, Workload, peak_rss_bytes,
};
use anyhow::Result;
use serde_json::{Value, json};

use crate::Ended;
use crate::args::ThroughputArgs;
use crate::device::select_device;
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
    let adaptive = match args.usage {
        Some(keep) => Some(compare(args, keep, name)?),
        None => None,
    };
    let measured = All {
        train,
        dense,
        adaptive,
    };
    if args.machine.json {
        print_json(&json_report(args, (threads, simd, name), &measured))?;
        return Ok(Ended::Done);
    }
    let All {
        train,
        dense,
        adaptive,
    } = &measured;
    let mut lines = vec![format!(
        "{preset}, batch {batch}, {threads} threads, {simd}, {name}; {} per image, product peak \
         {:.0} GFLOP/s",
        macs(dense.macs as f64),
        dense.found.peak_flops / 1e9,
    )];
    if let Some(train) = train {
        lines.extend(table("training", train));
    }
    lines.extend(table("inference", dense));
    if let Some((realised, rows)) = adaptive {
        lines.extend(realised_table(realised));
        lines.extend(rows.iter().flat_map(|rows| profile_table(rows)));
    }
    print(&lines.join("\n"))?;
    Ok(Ended::Done)
}

/// Everything that was measured.
struct All {
    train: Option<Measured>,
    dense: Measured,
    adaptive: Option<Compared>,
}

/// Plain model, masked and sparse path in turn, and the profile of the latter.
type Compared = (Realised, Option<Vec<Row>>);

fn compare(args: &ThroughputArgs, keep: Keep, device: &str) -> Result<Compared> {
    let adaptive = AdaptiveWorkload::new(&args.preset, keep, args.seed, &select_device(device)?)?
        .with_strategy(args.strategy.into());
    let realised = adaptive.measure(args.batch, args.seconds)?;
    let mut work = adaptive.sparse(args.batch)?;
    let rows = args
        .profile
        .then(|| profile(PROFILED, || Ok(work.run()?)))
        .transpose()?;
    Ok((realised, rows))
}

fn json_report(
    args: &ThroughputArgs,
    (threads, simd, device): (usize, &str, &str),
    measured: &All,
) -> Value {
    let speed = |measured: &Measured| {
        json!({
            "images_per_s": measured.found.images_per_s,
            "macs": measured.macs,
            "share_of_peak": measured.found.share_of_peak(),
            "profile": measured.rows,
        })
    };
    let (train, dense) = (measured.train.as_ref(), &measured.dense);
    let mut report = json!({
        "preset": args.preset,
        "batch": args.batch,
        "threads": threads,
        "simd": simd,
        "device": device,
        "dense": speed(dense),
        "train": train.map(speed),
        "peak_gflops": dense.found.peak_flops / 1e9,
        "step_rss_bytes": train.map(|train| train.found.grown_bytes),
        "peak_rss_bytes": peak_rss_bytes(),
    });
    if let Some((realised, rows)) = &measured.adaptive {
        add_realised(&mut report, realised, rows.as_ref());
    }
    report
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
    lines.extend(measured.rows.iter().flat_map(|rows| profile_table(rows)));
    lines
}

fn profile_table(rows: &[Row]) -> Vec<String> {
    let head = format!(
        "  {:<26}{:>10}{:>8}{:>10}",
        "operation", "ms", "share", "GFLOP/s"
    );
    let line = |row: &Row| {
        let gflops = row
            .gflops
            .map_or(String::new(), |gflops| format!("{gflops:.0}"));
        format!(
            "  {:<26}{:>10.3}{:>8.3}{gflops:>10}",
            row.operation, row.ms, row.share
        )
    };
    std::iter::once(head).chain(rows.iter().map(line)).collect()
}

/// Plain model, masked and sparse path, for people.
fn realised_table(found: &Realised) -> Vec<String> {
    let share = found.macs / found.dense_macs as f64;
    let speed = |what: &str, images_per_s: f64, macs_per_image: f64| {
        format!(
            "{what:<10} {images_per_s:>9.1} images/s   {} per image",
            macs(macs_per_image)
        )
    };
    vec![
        format!("in turn, keeping {share:.3} of the multiply-adds:"),
        speed("dense", found.dense_images_per_s, found.dense_macs as f64),
        speed("masked", found.masked_images_per_s, found.dense_macs as f64),
        speed("sparse", found.sparse_images_per_s, found.macs_executed),
        format!(
            "realised {:.3}: {:.2} times the plain model's images/s for {:.2} times fewer multiply-adds",
            found.ratio,
            found.sparse_images_per_s / found.dense_images_per_s,
            share.recip()
        ),
        format!(
            "one image at a time: half below {:.2} ms, 99 % below {:.2} ms",
            found.latency_p50, found.latency_p99
        ),
    ]
}

/// Adds what was measured in turn. `dense` is of the same rounds then.
fn add_realised(report: &mut Value, found: &Realised, rows: Option<&Vec<Row>>) {
    report["dense"]["images_per_s"] = json!(found.dense_images_per_s);
    report["masked"] = json!({"images_per_s": found.masked_images_per_s});
    report["sparse"] = json!({
        "images_per_s": found.sparse_images_per_s,
        "macs": found.macs,
        "macs_executed": found.macs_executed,
        "profile": rows,
    });
    report["realised"] = json!(found.ratio);
    report["latency_ms"] = json!({"p50": found.latency_p50, "p99": found.latency_p99});
}
