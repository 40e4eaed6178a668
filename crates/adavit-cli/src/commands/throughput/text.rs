//! What `adavit throughput` prints for people.

use adavit_experiment::measure::Realised;

use super::profile::Row;
use super::{Measured, Measurements, ThroughputArgs};
use crate::output::macs;

impl Measurements {
    pub(super) fn text(&self, args: &ThroughputArgs) -> String {
        let machine = &self.machine;
        let name = match &args.model.checkpoint {
            Some(path) => format!("{} ({})", path.display(), self.preset),
            None => self.preset.clone(),
        };
        let mut lines = vec![format!(
            "{name}, batch {}, {} threads, {}, {}; {} per image, product peak {:.0} GFLOP/s",
            args.batch_size,
            machine.threads,
            machine.simd,
            machine.device_name,
            macs(self.dense.macs as f64),
            self.dense.speed.peak_flops / 1e9,
        )];
        if let Some(train) = &self.train {
            lines.extend(table("training", train));
        }
        lines.extend(table("inference", &self.dense));
        if let Some(comparison) = &self.comparison {
            lines.extend(realised_table(&comparison.realised));
            let profile = comparison.profile.iter();
            lines.extend(profile.flat_map(|rows| profile_table(rows)));
        }
        lines.join("\n")
    }
}

/// Returns one workload, for people.
fn table(what: &str, measured: &Measured) -> Vec<String> {
    let speed = &measured.speed;
    let memory = speed.grown_bytes.map_or(String::new(), |bytes| {
        format!("   +{:.0} MB", bytes as f64 / 1e6)
    });
    let line = format!(
        "{what:<10} {:>9.1} images/s   {:.2} of the product peak{memory}",
        speed.images_per_s,
        speed.share_of_peak(),
    );
    let mut lines = vec![line];
    lines.extend(measured.profile.iter().flat_map(|rows| profile_table(rows)));
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

/// Returns the dense model, the masked and the sparse path, for people.
fn realised_table(realised: &Realised) -> Vec<String> {
    let share = realised.macs / realised.dense_macs as f64;
    let speed = |what: &str, images_per_s: f64, macs_per_image: f64| {
        format!(
            "{what:<10} {images_per_s:>9.1} images/s   {} per image",
            macs(macs_per_image)
        )
    };
    vec![
        format!("measured in turn, keeping {share:.3} of the multiply-adds:"),
        speed(
            "dense",
            realised.dense_images_per_s,
            realised.dense_macs as f64,
        ),
        speed(
            "masked",
            realised.masked_images_per_s,
            realised.dense_macs as f64,
        ),
        speed(
            "sparse",
            realised.sparse_images_per_s,
            realised.macs_executed,
        ),
        format!(
            "realised {:.3}: {:.2} times the dense model's images/s for {:.2} times fewer multiply-adds",
            realised.ratio,
            realised.sparse_images_per_s / realised.dense_images_per_s,
            share.recip()
        ),
        format!(
            "one image at a time: median {:.2} ms, 99th percentile {:.2} ms",
            realised.latency_p50, realised.latency_p99
        ),
    ]
}
