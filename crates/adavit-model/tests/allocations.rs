//! The sparse path allocates nothing per block once its buffers have grown.
#![expect(
    clippy::unwrap_used,
    reason = "the helpers here are test code, which clippy does not see"
)]

use adavit_decision::DecisionConfig;
use adavit_model::{Checkpoint, ModelConfig, Workspace, initial_tensors, is_decision_tensor};
use candle_core::{Device, Tensor};

/// Allocations of a forward of a model of `depth` blocks, on one thread, after two others.
fn allocations(depth: usize) -> u64 {
    let preset = ModelConfig::preset("nano_patch7_28").unwrap();
    let config = ModelConfig { depth, ..preset }.with_decisions(DecisionConfig::default());
    let mut tensors = initial_tensors(&config, 1, 0.4).unwrap();
    for (name, tensor) in &mut tensors {
        if is_decision_tensor(name) && name.ends_with("weight") {
            *tensor = (&*tensor * 50.0).unwrap();
        }
    }
    let model = Checkpoint { config, tensors }
        .prepared(&Device::Cpu)
        .unwrap();
    let pixels: Vec<f32> = (0..7 * 784).map(|i| (i as f32 * 0.7).sin()).collect();
    let images = Tensor::from_vec(pixels, (7, 1, 28, 28), &Device::Cpu).unwrap();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build();
    pool.unwrap().install(|| {
        let mut workspace = Workspace::default();
        let mut run = || model.forward_sparse(&images, &mut workspace).unwrap();
        run();
        run();
        let count = allocation_counter::measure(|| drop(run())).count_total;
        let tokens = |block| workspace.policy().tokens(block, 0).to_vec();
        assert!(
            (0..depth).any(|block| tokens(block).contains(&false)),
            "something is off"
        );
        count
    })
}

#[test]
fn the_number_of_allocations_does_not_grow_with_the_depth() {
    let shallow = allocations(2);
    assert!(shallow > 0, "the logits at least");
    assert_eq!(allocations(12), shallow);
}
