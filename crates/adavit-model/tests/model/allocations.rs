//! The sparse path allocates nothing per block once its buffers have grown.

use adavit_decision::DecisionConfig;
use adavit_model::{Checkpoint, ModelConfig, Workspace, initial_tensors};
use candle_core::Device;

use crate::common::{images, widen_decisions};

/// Allocations of a forward of a model of `depth` blocks, on one thread, after two others.
fn allocations(depth: usize) -> u64 {
    let preset = ModelConfig::preset("nano_patch7_28").unwrap();
    let config = ModelConfig { depth, ..preset }.with_decisions(DecisionConfig::default());
    let mut tensors = initial_tensors(&config, 1, 0.4).unwrap();
    widen_decisions(&mut tensors);
    let images = images(&config, 7, 0);
    let model = Checkpoint { config, tensors }
        .prepared(&Device::Cpu)
        .unwrap();
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
