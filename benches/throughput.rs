//! Images per second, measured like `adavit throughput`: the dense model, the masked and the sparse path
//! under random policies, and a training step.
//!
//! `ADAVIT_BENCH_FULL=1` runs the full grid of presets, batches and usages.

use std::time::Duration;

use adavit_experiment::measure::{AdaptiveWorkload, Keep, Workload};
use candle_core::Device;
use criterion::measurement::WallTime;
use criterion::{
    BenchmarkGroup, BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group,
    criterion_main,
};

/// Shares of tokens, heads and blocks; the first three by default.
const USAGES: [(f64, f64, f64); 6] = [
    (0.6, 0.8, 0.95),
    (0.5, 0.5, 0.5),
    (0.25, 0.5, 0.6),
    (0.5, 1.0, 1.0),
    (1.0, 0.5, 1.0),
    (1.0, 1.0, 0.5),
];

fn bench(group: &mut BenchmarkGroup<WallTime>, name: String, batch: usize, mut work: Workload) {
    group.throughput(Throughput::Elements(batch as u64));
    group.bench_function(BenchmarkId::new(name, batch), |b| {
        b.iter(|| work.run().expect("a forward or step"));
    });
}

fn throughput(c: &mut Criterion) {
    adavit_benches::set_threads();
    let full = std::env::var_os("ADAVIT_BENCH_FULL").is_some_and(|value| value == "1");
    let small = ["nano_patch4_28", "deit_small_patch16_224"];
    let large = ["nano_patch7_28", "deit_tiny_patch16_224"];
    let presets = small.iter().chain(if full { &large[..] } else { &[] });
    let batches: &[usize] = if full { &[1, 8, 32, 64] } else { &[1, 8] };
    let usages = &USAGES[..if full { USAGES.len() } else { 3 }];
    let mut group = c.benchmark_group("throughput");
    group
        .sample_size(10)
        .sampling_mode(SamplingMode::Flat)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    for preset in presets {
        for &batch in batches {
            let dense = Workload::inference(preset, batch, 0, &Device::Cpu);
            let dense = dense.expect("a preset of the crate");
            bench(&mut group, format!("dense/{preset}"), batch, dense);
            for &(tokens, heads, blocks) in usages {
                let keep = Keep {
                    tokens,
                    heads,
                    blocks,
                };
                let adaptive = AdaptiveWorkload::new(preset, keep, 0, &Device::Cpu)
                    .expect("a preset of the crate");
                let name = |path: &str| format!("{path}/{preset}/{tokens}-{heads}-{blocks}");
                let masked = adaptive.masked(batch).expect("a batch");
                bench(&mut group, name("masked"), batch, masked);
                let sparse = adaptive.sparse(batch).expect("a batch");
                bench(&mut group, name("sparse"), batch, sparse);
            }
        }
    }
    let (preset, batch) = ("nano_patch4_28", 32);
    let work = Workload::training(preset, batch, 0, &Device::Cpu);
    let work = work.expect("a preset of the crate");
    bench(&mut group, format!("train/{preset}"), batch, work);
    group.finish();
}

criterion_group!(benches, throughput);
criterion_main!(benches);
