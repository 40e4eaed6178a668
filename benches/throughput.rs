//! Images per second of the plain model, as `adavit throughput` runs it, and of a training step.
//!
//! `ADAVIT_BENCH_FULL=1` runs the full grid of presets and batches.

use adavit_train::Workload;
use candle_core::Device;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

fn throughput(c: &mut Criterion) {
    adavit_benches::set_threads();
    let full = std::env::var_os("ADAVIT_BENCH_FULL").is_some_and(|value| value == "1");
    let small = ["nano_patch4_28", "deit_small_patch16_224"];
    let large = ["nano_patch7_28", "deit_tiny_patch16_224"];
    let presets = small.iter().chain(if full { &large[..] } else { &[] });
    let batches: &[usize] = if full { &[1, 8, 32, 128] } else { &[1, 8] };
    let mut group = c.benchmark_group("throughput");
    group.sample_size(10);
    for preset in presets {
        for batch in batches {
            let work = Workload::inference(preset, *batch, 0, &Device::Cpu);
            let mut work = work.expect("a preset of the crate");
            group.throughput(Throughput::Elements(*batch as u64));
            group.bench_function(BenchmarkId::new(format!("dense/{preset}"), batch), |b| {
                b.iter(|| work.run().expect("a forward"));
            });
        }
    }
    let (preset, batch) = ("nano_patch4_28", 32);
    let work = Workload::training(preset, batch, 0, &Device::Cpu);
    let mut work = work.expect("a preset of the crate");
    group.throughput(Throughput::Elements(batch as u64));
    group.bench_function(BenchmarkId::new(format!("train/{preset}"), batch), |b| {
        b.iter(|| work.run().expect("a step"));
    });
    group.finish();
}

criterion_group!(benches, throughput);
criterion_main!(benches);
