//! Images per second of the dense path and of the masked path, which also computes everything: the
//! sparse path must be faster than both.

use std::time::Duration;

use adavit_benches::{adaptive_model, images};
use adavit_decision::Gating;
use adavit_model::Capture;
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};

fn masked(c: &mut Criterion) {
    adavit_benches::set_threads();
    let preset = "nano_patch4_28";
    let model = adaptive_model(preset).expect("a preset of the crate");
    let mut group = c.benchmark_group(format!("masked/{preset}"));
    group
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(2));
    for batch in [1, 32] {
        let images = images(model.config(), batch).expect("images of the model's size");
        group.throughput(Throughput::Elements(batch as u64));
        group.bench_function(BenchmarkId::new("dense", batch), |b| {
            b.iter(|| model.forward(&images, Capture::default()));
        });
        group.bench_function(BenchmarkId::new("masked", batch), |b| {
            b.iter(|| model.forward_masked(&images, &mut Gating::Inference, Capture::default()));
        });
    }
    group.finish();
}

criterion_group!(benches, masked);
criterion_main!(benches);
