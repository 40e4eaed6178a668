//! Native checkpoints: what is written is read back, and what does not fit is named.

use std::fs;
use std::path::Path;

use adavit_decision::DecisionConfig;
use adavit_model::{
    Checkpoint, Error, ImportOptions, ModelConfig, Tensors, import, initial_tensors, write_tensors,
};
use candle_core::{DType, Device, Tensor};

use crate::common::{file, values};

fn checkpoint() -> Checkpoint {
    let config = ModelConfig::preset("nano_patch7_28")
        .unwrap()
        .with_decisions(DecisionConfig::default());
    let tensors = initial_tensors(&config, 1, 0.0).unwrap();
    Checkpoint { config, tensors }
}

/// A saved checkpoint with changed tensors.
fn saved(change: impl FnOnce(&mut Tensors)) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let mut checkpoint = checkpoint();
    checkpoint.save(folder.path()).unwrap();
    change(&mut checkpoint.tensors);
    write_tensors(
        &folder.path().join("model.safetensors"),
        &checkpoint.tensors,
    )
    .unwrap();
    folder
}

#[test]
fn what_was_saved_is_loaded_by_folder_file_and_run_folder() {
    let folder = tempfile::tempdir().unwrap();
    let best = folder.path().join("best");
    let saved = checkpoint();
    saved.save(&best).unwrap();
    for path in [
        folder.path().to_path_buf(),
        best.clone(),
        best.join("model.safetensors"),
    ] {
        let loaded = Checkpoint::load(&path).unwrap();
        assert_eq!(loaded.config, saved.config);
        for (name, tensor) in &saved.tensors {
            assert_eq!(values(tensor), values(&loaded.tensors[name]));
        }
    }
}

#[test]
fn the_same_checkpoint_gives_the_same_bytes() {
    let bytes = || {
        let folder = tempfile::tempdir().unwrap();
        checkpoint().save(folder.path()).unwrap();
        fs::read(folder.path().join("model.safetensors")).unwrap()
    };
    assert!(bytes() == bytes());
}

#[test]
fn missing_unused_and_misshapen_tensors_are_named_all_at_once() {
    let extra = Tensor::zeros(3, DType::F32, &Device::Cpu).unwrap();
    let missing = ["norm.bias", "blocks.1.head_select.mlp_head.weight"];
    let folder = saved(|tensors| {
        for name in missing {
            tensors.remove(name);
        }
        tensors.insert("head_dist.weight".into(), extra.clone());
        tensors.insert("norm.weight".into(), extra);
    });
    let error = Checkpoint::load(folder.path()).unwrap_err();
    assert!(matches!(error, Error::Tensors { .. }));
    assert!(error.is_input_error());
    let text = error.to_string();
    for part in [
        "2 tensors missing: blocks.1.head_select.mlp_head.weight, norm.bias",
        "1 tensor without a place in the model: head_dist.weight",
        "1 tensor of another shape: norm.weight (expected [64] floats, found [3] F32)",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn damaged_files_are_named() {
    let folder = saved(|_| ());
    let weights = folder.path().join("model.safetensors");
    let config = folder.path().join("config.json");
    let bytes = fs::read(&weights).unwrap();
    for kept in [0, 4, 100, bytes.len() / 2, bytes.len() - 1] {
        fs::write(&weights, &bytes[..kept]).unwrap();
        let error = Checkpoint::load(folder.path()).unwrap_err();
        assert!(matches!(error, Error::Checkpoint { .. }), "{kept}: {error}");
        assert!(error.to_string().contains("model.safetensors"));
    }
    fs::write(&weights, &bytes).unwrap();
    for text in ["", "{}", "{\"preset\": 1}", "[]"] {
        fs::write(&config, text).unwrap();
        let error = Checkpoint::load(folder.path()).unwrap_err();
        assert!(error.to_string().contains("config.json"), "{error}");
        assert!(error.is_input_error());
    }
    fs::remove_file(&config).unwrap();
    assert!(
        Checkpoint::load(folder.path())
            .unwrap_err()
            .is_input_error()
    );
    let nowhere = folder.path().join("nowhere");
    assert!(
        Checkpoint::load(&nowhere)
            .unwrap_err()
            .to_string()
            .contains("no checkpoint")
    );
}

#[test]
fn a_configuration_that_fits_no_model_is_refused() {
    let folder = saved(|_| ());
    let path = folder.path().join("config.json");
    let text = fs::read_to_string(&path).unwrap();
    fs::write(&path, text.replace("\"num_heads\": 4", "\"num_heads\": 5")).unwrap();
    let error = Checkpoint::load(folder.path()).unwrap_err();
    assert!(error.to_string().contains("num_heads 5"), "{error}");
}

#[test]
fn the_stem_is_three_keys_of_config_json() {
    let keys = ["patch_size", "tokens_to_token", "conv_stem"];
    for (preset, expected) in [
        ("nano_patch7_28", [Some("7"), None, None]),
        (
            "nano_conv_patch4_28",
            [
                Some("4"),
                None,
                Some(r#"{"channels":[16,32,64],"strides":[1,2,2]}"#),
            ],
        ),
        (
            "t2t_vit_7",
            [
                Some("16"),
                Some(r#"{"token_dim":64,"tokens_type":"performer"}"#),
                None,
            ],
        ),
    ] {
        let config = ModelConfig::preset(preset).unwrap();
        let value = serde_json::to_value(&config).unwrap();
        let found = keys.map(|key| value.get(key).map(ToString::to_string));
        assert_eq!(found, expected.map(|text| text.map(String::from)));
        assert_eq!(
            serde_json::from_value::<ModelConfig>(value).unwrap(),
            config
        );
    }
}

#[test]
fn shipped_checkpoints_load_and_their_config_is_written_back_byte_by_byte() {
    let shipped = file("../../../data/fashion-mnist-nano");
    for name in ["dense", "adaptive-0.2857", "adaptive-0.4545"] {
        let loaded = Checkpoint::load(&shipped.join(name)).unwrap();
        let folder = tempfile::tempdir().unwrap();
        loaded.save(folder.path()).unwrap();
        let text = |folder: &Path| fs::read_to_string(folder.join("config.json")).unwrap();
        assert_eq!(text(folder.path()), text(&shipped.join(name)), "{name}");
    }
}

#[test]
fn a_config_json_whose_stem_contradicts_itself_is_refused() {
    let folder = saved(|_| ());
    let path = folder.path().join("config.json");
    let text = fs::read_to_string(&path).unwrap();
    let conv = r#""conv_stem": { "channels": [4, 8], "strides": [2, 2] }"#;
    let t2t = r#""tokens_to_token": { "tokens_type": "performer", "token_dim": 8 }"#;
    for (keys, part) in [
        (conv.to_string(), "expected patch_size 7 as their product"),
        (format!("{conv}, {t2t}"), "no patch embedding to replace"),
    ] {
        let replaced = text.replace("\"in_chans\"", &format!("{keys}, \"in_chans\""));
        fs::write(&path, replaced).unwrap();
        for file in [
            folder.path().to_path_buf(),
            folder.path().join("model.safetensors"),
        ] {
            let error = import(&file, &ImportOptions::default())
                .unwrap_err()
                .to_string();
            assert!(
                error.contains(part) && error.contains("config.json"),
                "{error}"
            );
        }
    }
}
