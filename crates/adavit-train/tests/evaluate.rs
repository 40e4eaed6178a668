//! Evaluations: every path reports the same results, turns included, and usage counts what ran.
#![expect(
    clippy::unwrap_used,
    reason = "the helpers here are test code, which clippy does not see"
)]

use adavit_data::{Dataset, Normalization};
use adavit_decision::DecisionConfig;
use adavit_model::{
    Checkpoint, ModelConfig, ReductionMethod, TokenReduction, initial_tensors, is_decision_tensor,
};
use adavit_train::{
    Evaluation, Evaluator, Images, Mode, evaluate, evaluate_in_turns, evaluate_prepared, in_turns,
};
use candle_core::Device;

const IMAGES: usize = 11;

fn dataset() -> Dataset {
    let pixels = (0..IMAGES * 784).map(|i| ((i * i) % 251) as u8);
    let labels = (0..IMAGES).map(|i| (i % 10) as u8).collect();
    let names = (0..10).map(|class| class.to_string()).collect();
    Dataset::new("made", [1, 28, 28], pixels.collect(), labels, names).unwrap()
}

fn images<'a>(
    dataset: &'a Dataset,
    indices: &'a [u32],
    normalization: &'a Normalization,
) -> Images<'a> {
    Images {
        dataset,
        indices,
        normalization,
        batch_size: 4,
        device: &Device::Cpu,
    }
}

/// Calls `test` with all images of the data set.
fn with_images(test: impl FnOnce(&Images)) {
    let dataset = dataset();
    let (indices, normalization) = (dataset.indices(), dataset.normalization());
    test(&images(&dataset, &indices, &normalization));
}

fn dense() -> Checkpoint {
    let config = ModelConfig::preset("nano_patch7_28").unwrap();
    let tensors = initial_tensors(&config, 5, 0.0).unwrap();
    Checkpoint { config, tensors }
}

/// The dense model with decision networks whose gates differ from image to image.
fn adaptive() -> Checkpoint {
    let mut adaptive = dense();
    adaptive.config = adaptive.config.with_decisions(DecisionConfig::default());
    adaptive.tensors = initial_tensors(&adaptive.config, 5, 0.0).unwrap();
    for (name, tensor) in &mut adaptive.tensors {
        if is_decision_tensor(name) && name.ends_with("weight") {
            *tensor = tensor.affine(50.0, 0.0).unwrap();
        }
    }
    adaptive
}

/// The same, except the speed, which no two evaluations share.
fn assert_same(a: &Evaluation, b: &Evaluation) {
    assert!(a.images_per_s > 0.0 && b.images_per_s > 0.0);
    let without_speed = |evaluation: &Evaluation| Evaluation {
        images_per_s: 0.0,
        ..evaluation.clone()
    };
    assert_eq!(without_speed(a), without_speed(b));
}

#[test]
fn prepared_paths_report_what_the_composed_ones_do() {
    with_images(|images| {
        let model = dense().model(&Device::Cpu).unwrap();
        let prepared = dense().prepared(&Device::Cpu).unwrap();
        let composed = evaluate(&model, images, Mode::Dense).unwrap();
        let found = evaluate_prepared(&prepared, images).unwrap();
        assert_same(&found, &composed);
        assert_eq!((found.images, found.macs_share), (IMAGES, 1.0));
        assert_eq!(found.usage.tokens, 1.0);

        let model = adaptive().model(&Device::Cpu).unwrap();
        let prepared = adaptive().prepared(&Device::Cpu).unwrap();
        let masked = evaluate(&model, images, Mode::Masked).unwrap();
        let sparse = evaluate_prepared(&prepared, images).unwrap();
        assert_same(&sparse, &masked);
        assert!(sparse.macs_share < 1.0 && sparse.macs_std > 0.0);
    });
}

#[test]
fn models_take_turns_and_report_what_they_do_alone() {
    with_images(|images| {
        let dense = dense().prepared(&Device::Cpu).unwrap();
        let sparse = adaptive().prepared(&Device::Cpu).unwrap();
        let both = || {
            [
                Evaluator::prepared(&dense, images).unwrap(),
                Evaluator::prepared(&sparse, images).unwrap(),
            ]
        };
        let mut evaluators = both();
        let turns = in_turns(&mut evaluators).map(|turn| {
            let (index, reports) = turn.unwrap();
            (index, reports.iter().map(|report| report.image).collect())
        });
        let turns: Vec<(usize, Vec<u32>)> = turns.collect();
        let batches = [vec![0, 1, 2, 3], vec![4, 5, 6, 7], vec![8, 9, 10]];
        let expected = batches.into_iter().flat_map(|b| [(0, b.clone()), (1, b)]);
        assert_eq!(turns, expected.collect::<Vec<_>>());

        let [in_turn_dense, in_turn_sparse] = evaluate_in_turns(both()).unwrap();
        assert_same(&in_turn_dense, &evaluate_prepared(&dense, images).unwrap());
        assert_same(
            &in_turn_sparse,
            &evaluate_prepared(&sparse, images).unwrap(),
        );
    });
}

#[test]
fn usage_of_a_token_reduction_counts_the_tokens_that_ran() {
    with_images(|images| {
        let model = dense().model(&Device::Cpu).unwrap();
        let depth = model.config().depth;
        // Of 16 patch tokens, 12 stay in the first block and 8 in the others.
        let mut tokens = vec![9; depth];
        tokens[0] = 13;
        let reduction = TokenReduction {
            method: ReductionMethod::Evit,
            tokens,
        };
        let found = evaluate(&model, images, Mode::Reduced(&reduction)).unwrap();
        let per_block = &found.usage.per_block;
        assert_eq!((per_block[0].tokens, per_block[1].tokens), (0.75, 0.5));
        let mean = (0.75 + 0.5 * (depth - 1) as f64) / depth as f64;
        assert!((found.usage.tokens - mean).abs() < 1e-12);
        let ran = per_block
            .iter()
            .map(|block| (block.heads, block.attention, block.mlp));
        assert!(ran.into_iter().all(|ran| ran == (1.0, 1.0, 1.0)));
        assert_eq!(found.macs, reduction.macs(model.config()) as f64);
    });
}

#[test]
fn an_evaluation_without_images_is_refused() {
    with_images(|images| {
        let model = dense().model(&Device::Cpu).unwrap();
        for (indices, batch_size) in [(&[][..], 4), (&[0][..], 0)] {
            let images = Images {
                indices,
                batch_size,
                ..*images
            };
            let error = evaluate(&model, &images, Mode::Dense).unwrap_err();
            assert!(error.is_input_error(), "{error}");
        }
    });
}
