//! Models and settings for `fashion-scenes`: the shipped recipe fits the scenes, the default model takes their
//! size, and a run on them is chosen by their own held-out part.
#![expect(
    clippy::unwrap_used,
    reason = "the helpers here are test code, which clippy does not see"
)]

use std::fs;
use std::path::Path;

use adavit_data::{FASHION_SCENES, all_indices};
use adavit_train::{ImageSource, ModelOptions, Session, TrainConfig, open_images, open_tested};
use candle_core::Device;

fn on_scenes(more: &str) -> TrainConfig {
    TrainConfig::from_toml(&format!("data = \"{FASHION_SCENES}\"\n{more}")).unwrap()
}

#[test]
fn the_shipped_recipe_fits_the_scenes_and_its_compute() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs");
    let text = fs::read_to_string(folder.join("fashion_scenes_nano.toml")).unwrap();
    let mut config = TrainConfig::from_toml(&text).unwrap();
    let written = config.clone();
    let images = open_images(&mut config).unwrap();
    assert_eq!(config, written);
    assert!(images.notes.is_empty(), "{:?}", images.notes);
    let macs = config.dense_model().unwrap().geometry().dense_macs();
    assert!((20_000_000..=25_000_000).contains(&macs), "{macs}");
    config.adaptive_model().unwrap().validate().unwrap();
    let session = Session::prepare(&config, &images.splits, &Device::Cpu, None).unwrap();
    assert_eq!(session.split.train.len(), 40_000);
    let held_out = session.held_out();
    let val = images.splits.val.as_ref().unwrap();
    assert_eq!(held_out.indices, all_indices(val.as_ref()));
    assert_eq!(held_out.dataset.scene_truth(3), val.scene_truth(3));
}

#[test]
fn a_model_without_a_size_takes_that_of_the_scenes() {
    let mut config = on_scenes("");
    let images = open_images(&mut config).unwrap();
    let expected = ModelOptions {
        img_size: Some((72, 72)),
        in_chans: Some(1),
        num_classes: Some(10),
        // 7 does not divide 72.
        patch_size: Some(8),
        ..ModelOptions::default()
    };
    assert_eq!(config.model, expected);
    let notes = images.notes.join("\n");
    assert!(notes.contains("72x72 pixels in patches of 8"), "{notes}");
    Session::prepare(&config, &images.splits, &Device::Cpu, None).unwrap();
    // A resumed run has these settings already.
    let completed = config.clone();
    assert!(open_images(&mut config).unwrap().notes.is_empty());
    assert_eq!(config, completed);
}

#[test]
fn patches_that_divide_the_scene_or_are_set_stay() {
    for (more, patch_size, option) in [
        ("preset = \"nano_patch4_28\"", 4, None),
        ("preset = \"nano_conv_patch4_28\"", 4, None),
        ("[model]\npatch_size = 4", 4, Some(4)),
    ] {
        let mut config = on_scenes(more);
        open_images(&mut config).unwrap();
        let model = config.dense_model().unwrap();
        assert_eq!(
            (model.img_size, model.stem.patch_size()),
            ((72, 72), patch_size)
        );
        assert_eq!(config.model.patch_size, option);
    }
    let mut other = on_scenes("[model]\nimg_size = [56, 56]");
    let images = open_images(&mut other).unwrap();
    let error = Session::prepare(&other, &images.splits, &Device::Cpu, None).unwrap_err();
    assert!(error.to_string().contains("72x72"), "{error}");
}

#[test]
fn an_evaluation_is_on_the_test_scenes() {
    let source = ImageSource {
        data: FASHION_SCENES.into(),
        ..ImageSource::default()
    };
    let mut config = on_scenes("");
    let splits = open_images(&mut config).unwrap().splits;
    let tested = open_tested(&source, &config.dense_model().unwrap()).unwrap();
    assert_eq!(tested.images.len(), 10_000);
    assert_eq!(
        tested.images.scene_truth(9).unwrap(),
        splits.test.scene_truth(9).unwrap()
    );
}
