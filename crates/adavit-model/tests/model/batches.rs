//! An image has the same bits alone, in any batch, for any number of threads and whatever its
//! workspace served before.

use adavit_decision::HeadDeactivation;
use adavit_model::{ConvStemConfig, ModelConfig, PreparedTransformer, Stem, TokensType, Workspace};
use candle_core::{Device, Tensor};

use crate::common::values;
use crate::harness::{Decides, Model, StemChoice, accelerator, config, with_stem};

/// Logits of each image of a batch.
fn rows(model: &PreparedTransformer, images: &Tensor, workspace: &mut Workspace) -> Vec<Vec<f32>> {
    let logits = model.forward_sparse(images, workspace).unwrap();
    logits.to_vec2().unwrap()
}

#[test]
fn an_image_has_the_same_bits_in_any_batch_and_for_any_number_of_threads() {
    for stem in [
        StemChoice::Patches,
        StemChoice::Convolutions,
        StemChoice::TokensToToken(TokensType::Performer),
        StemChoice::TokensToToken(TokensType::Transformer),
    ] {
        let config = config(4, 16, Decides::all(Some(HeadDeactivation::Full), 1));
        assert_same_bits(&Model::new(with_stem(config, stem), 11));
    }
}

fn assert_same_bits(model: &Model) {
    let images = model.images(64, 2);
    let pool = |n: usize| {
        rayon::ThreadPoolBuilder::new()
            .num_threads(n)
            .build()
            .unwrap()
    };
    let n = model.config.num_tokens();
    let mut workspace = Workspace::default();
    let together = rows(&model.sparse, &images, &mut workspace);
    let kept: usize = (0..64)
        .flat_map(|image| workspace.policy().image_kept(image))
        .map(|used| used.tokens())
        .sum();
    assert!(kept > 64 * 3 && kept < 64 * 3 * n, "a ragged batch");
    let policy = workspace.policy().clone();
    for threads in [1, 2, 3, 4] {
        let mut workspace = Workspace::default();
        let found = pool(threads).install(|| rows(&model.sparse, &images, &mut workspace));
        assert!(found == together, "{threads} threads");
        assert!(*workspace.policy() == policy, "{threads} threads: policy");
    }
    for (image, expected) in together.iter().enumerate().step_by(7) {
        let alone = images.narrow(0, image, 1).unwrap();
        assert!(
            rows(&model.sparse, &alone, &mut workspace)[0] == *expected,
            "image {image} alone"
        );
        let few = images.narrow(0, image.saturating_sub(3), 4).unwrap();
        let place = image.min(3);
        let found = rows(&model.sparse, &few, &mut workspace);
        assert!(found[place] == *expected, "image {image} at {place}");
    }
}

#[test]
fn one_workspace_serves_other_models_and_batches() {
    let model = |img_size, channels: [usize; 3], seed| {
        let config = config(2, 16, Decides::all(Some(HeadDeactivation::Full), 0));
        let stem = ConvStemConfig {
            channels: channels.to_vec(),
            strides: vec![2, 1, 2],
        };
        let config = ModelConfig {
            img_size,
            stem: Stem::Convolutions(stem),
            ..with_stem(config, StemChoice::Convolutions)
        };
        Model::new(config, seed)
    };
    // Sides and channels change places, so that buffers are about as long.
    let models = [
        model((16, 12), [5, 8, 6], 1),
        model((12, 16), [5, 8, 6], 2),
        model((16, 12), [8, 5, 6], 3),
    ];
    let mut workspace = Workspace::default();
    for (b, model) in [1, 9, 2, 7]
        .into_iter()
        .flat_map(|b| models.iter().map(move |m| (b, m)))
    {
        let images = model.images(b, b as u64);
        let found = rows(&model.sparse, &images, &mut workspace);
        let expected = rows(&model.sparse, &images, &mut Workspace::default());
        assert!(
            found == expected,
            "{b} images of {:?}",
            model.config.img_size
        );
    }
}

#[test]
fn two_threads_share_a_model() {
    let model = Model::new(
        config(2, 16, Decides::all(Some(HeadDeactivation::HeadV2), 1)),
        4,
    );
    let images = model.images(9, 5);
    let run = || {
        let mut workspace = Workspace::default();
        let dense = model.sparse.forward_dense(&images, &mut workspace).unwrap();
        let sparse = (0..5).map(|_| rows(&model.sparse, &images, &mut workspace));
        (values(&dense), sparse.collect::<Vec<_>>())
    };
    let expected = run();
    std::thread::scope(|scope| {
        let threads = [scope.spawn(run), scope.spawn(run)];
        for thread in threads {
            assert!(thread.join().unwrap() == expected);
        }
    });
}

#[test]
fn a_logit_that_is_nan_spoils_its_image_alone() {
    let model = Model::new(config(2, 16, Decides::all(None, 1)), 6);
    let images = model.images(3, 7);
    let mut pixels = values(&images);
    pixels[784 + 300] = f32::NAN;
    let images = Tensor::from_vec(pixels, images.dims(), &Device::Cpu).unwrap();
    for (model, device) in [
        (&model.sparse, Device::Cpu),
        (&model.gathered, accelerator()),
    ] {
        let images = images.to_device(&device).unwrap();
        let found = rows(model, &images, &mut Workspace::default());
        for (image, logits) in found.iter().enumerate() {
            let all = logits.iter().all(|logit| logit.is_nan());
            let none = logits.iter().all(|logit| logit.is_finite());
            assert!(if image == 1 { all } else { none }, "image {image}");
        }
    }
}
