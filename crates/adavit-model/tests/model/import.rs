//! Checkpoints of others: what they say is taken, and what is assumed is noted.

use adavit_decision::DecisionConfig;
use adavit_model::{
    Checkpoint, ImportOptions, ModelConfig, Origin, Tensors, import, initial_tensors,
};
use candle_core::{Device, Tensor};

use crate::common::file;
use crate::foreign::{fused, read, read_with, small, written};

#[test]
fn how_pixels_are_prepared_is_never_assumed_in_silence() {
    let tensors = timm("deit_tiny_patch16_224", (224, 224));
    let folder = written(&tensors);
    let read = || {
        import(
            &folder.path().join("weights.safetensors"),
            &ImportOptions::default(),
        )
        .unwrap()
    };
    let notes = read().notes.join("\n");
    assert!(
        notes.contains("no file says how pixels are normalised: mean [0.485"),
        "{notes}"
    );
    let flat = r#"{"architecture": "vit_tiny_patch16_224", "input_size": [3, 224, 224],
        "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "crop_pct": 0.95, "interpolation": "bicubic"}"#;
    std::fs::write(folder.path().join("config.json"), flat).unwrap();
    let found = read();
    let normalization = found.checkpoint.config.normalization.unwrap();
    assert_eq!(
        (normalization.mean, normalization.std),
        (vec![0.5; 3], vec![0.5; 3])
    );
    assert!((found.checkpoint.config.preprocessing.unwrap().crop_pct - 0.95).abs() < 1e-12);
    assert!(!found.notes.iter().any(|note| note.contains("assumed;")));
}

#[test]
fn decision_networks_say_what_is_decided() {
    let decisions = DecisionConfig {
        ada_token_start_layer: 1,
        norm_policy: true,
        ..DecisionConfig::default()
    };
    let ours = small(Some(decisions.clone()));
    let found = read(&ours.tensors).unwrap().checkpoint;
    assert_eq!(found.config.decisions, Some(decisions));
    assert_eq!(found.config.num_heads, 2);
}

#[test]
fn what_a_checkpoint_says_is_not_overridden() {
    let ours = small(Some(DecisionConfig::default()));
    let options = ImportOptions {
        num_heads: Some(4),
        ..ImportOptions::default()
    };
    let error = read_with(&ours.tensors, &options).unwrap_err().to_string();
    assert!(error.contains("expected 2"), "{error}");
    let folder = tempfile::tempdir().unwrap();
    ours.save(folder.path()).unwrap();
    let error = import(folder.path(), &options).unwrap_err().to_string();
    assert!(error.contains("expected 2"), "{error}");
    // A file of torch.save beside our config.json is not ours.
    std::fs::copy(
        file("published/timm_saver_ema.pth"),
        folder.path().join("ema.pth"),
    )
    .unwrap();
    let found = import(&folder.path().join("ema.pth"), &ImportOptions::default()).unwrap();
    assert_eq!(
        (found.origin, found.checkpoint.config.num_heads),
        (Origin::Timm, 3)
    );
}

#[test]
fn our_own_checkpoints_are_read_as_they_are() {
    let ours = small(Some(DecisionConfig::default()));
    let folder = tempfile::tempdir().unwrap();
    ours.save(folder.path()).unwrap();
    for path in [
        folder.path().to_path_buf(),
        folder.path().join("model.safetensors"),
    ] {
        let found = import(&path, &ImportOptions::default()).unwrap();
        assert_eq!((found.origin, found.notes.len()), (Origin::Adavit, 0));
        assert_eq!(found.checkpoint.config, ours.config);
    }
}

#[test]
fn what_is_no_vit_is_refused_by_name() {
    let ours = small(None);
    let without = |name: &str| {
        let mut tensors = ours.tensors.clone();
        tensors.remove(name);
        read(&tensors).unwrap_err().to_string()
    };
    assert!(without("pos_embed").contains("no pos_embed"));
    assert!(without("blocks.1.norm2.weight").contains("blocks.1.norm2.weight"));
    let with = |name: &str, dims: &[usize]| {
        let mut tensors = ours.tensors.clone();
        let tensor = Tensor::zeros(dims, candle_core::DType::F32, &Device::Cpu).unwrap();
        tensors.insert(name.into(), tensor);
        read(&tensors).unwrap_err().to_string()
    };
    assert!(with("reg_token", &[1, 4, 128]).contains("reg_token"));
    assert!(with("dist_token", &[1, 1, 128]).contains("17 tokens are not 2"));
    assert!(with("pos_embed", &[1, 13, 128]).contains("13 tokens"));
    assert!(with("patch_embed.proj.weight", &[96, 1, 7, 7]).contains("heads"));
    assert!(with("blocks.0.attn.proj.weight", &[128, 64]).contains("expected [128, 128]"));
    assert!(with("blocks.7.norm1.weight", &[128]).contains("missing"));
    for number in ["99999999999", "18446744073709551615"] {
        let name = format!("blocks.{number}.norm1.weight");
        assert!(with(&name, &[128]).contains("without a place"), "{number}");
    }
    let swin = [(
        "layers.0.blocks.0.attn.relative_position_bias_table",
        ours.tensors["pos_embed"].clone(),
    )];
    let swin = swin.map(|(name, tensor)| (name.to_string(), tensor));
    let text = read(&swin.into_iter().collect()).unwrap_err().to_string();
    assert!(
        text.contains("among 1 tensors, layers.0.blocks.0.attn.relative_position_bias_table, which look like Swin"),
        "{text}"
    );
    assert!(read(&Tensors::new()).unwrap_err().is_input_error());
}

/// As timm writes them, the tensors of a preset with other images.
fn timm(preset: &str, img_size: (usize, usize)) -> Tensors {
    let config = ModelConfig {
        img_size,
        ..ModelConfig::preset(preset).unwrap()
    };
    fused(&initial_tensors(&config, 4, 0.0).unwrap())
}

#[test]
fn a_model_has_the_name_of_a_preset_only_where_all_sizes_agree() {
    let options = |num_heads, img_size| ImportOptions {
        num_heads,
        img_size,
        ..ImportOptions::default()
    };
    for (tensors, options, expected) in [
        (
            timm("nano_patch7_28", (28, 28)),
            options(Some(4), None),
            "nano_patch7_28",
        ),
        // As many heads as timm has of this width.
        (
            timm("nano_patch7_28", (28, 28)),
            options(None, None),
            "custom_vit",
        ),
        (
            timm("nano_patch7_28", (56, 56)),
            options(Some(4), None),
            "custom_vit",
        ),
        (
            timm("nano_patch7_28", (28, 28)),
            options(Some(4), Some((35, 35))),
            "custom_vit",
        ),
        (
            timm("deit_tiny_patch16_224", (32, 32)),
            options(None, None),
            "custom_vit",
        ),
    ] {
        let found = read_with(&tensors, &options).unwrap().checkpoint.config;
        assert_eq!(found.preset, expected, "{options:?}");
    }
}

#[test]
fn heads_that_nothing_says_are_those_of_timm_and_noted() {
    let found = read(&timm("deit_tiny_patch16_224", (32, 32))).unwrap();
    assert_eq!(found.checkpoint.config.num_heads, 3);
    assert!(found.num_heads_assumed);
    let noted = |part: &str| found.notes.iter().any(|note| note.contains(part));
    assert!(noted("3 of 64 channels were assumed"), "{:?}", found.notes);
    let given = ImportOptions {
        num_heads: Some(3),
        ..ImportOptions::default()
    };
    let found = read_with(&timm("deit_tiny_patch16_224", (32, 32)), &given).unwrap();
    assert!(!found.num_heads_assumed);
    // Normalisation is that of the architecture, whatever the size of the images.
    assert!(found.checkpoint.config.normalization.is_some());
}

#[test]
fn a_resized_checkpoint_of_ours_loses_the_name_of_its_preset() {
    let folder = tempfile::tempdir().unwrap();
    let config = ModelConfig::preset("nano_patch7_28").unwrap();
    let tensors = initial_tensors(&config, 4, 0.0).unwrap();
    Checkpoint { config, tensors }.save(folder.path()).unwrap();
    let options = ImportOptions {
        img_size: Some((35, 35)),
        ..ImportOptions::default()
    };
    let found = import(folder.path(), &options).unwrap().checkpoint;
    assert_eq!(found.config.preset, "custom_vit");
}
