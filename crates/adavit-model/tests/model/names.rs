//! Names and places of weights: prefixes, folders, shards, and what others call their tensors.

use adavit_model::{
    Capture, Checkpoint, ImportOptions, ModelConfig, Origin, Tensors, Workspace, import,
    initial_tensors, write_tensors,
};
use candle_core::{Device, Tensor};

use crate::common::{difference, images};
use crate::foreign::{fused, hugging_face, logits, prefixed, read, read_with, small, torchvision};

#[test]
fn names_of_others_give_the_same_logits() {
    let ours = small(None);
    let timm = fused(&ours.tensors);
    let inside: Tensors = timm
        .iter()
        .map(|(name, tensor)| {
            let name = name.replace("blocks.1.", "blocks.1._orig_mod.");
            (name, tensor.clone())
        })
        .collect();
    for (tensors, origin) in [
        (timm.clone(), Origin::Timm),
        (prefixed(&timm, "module."), Origin::Timm),
        (prefixed(&timm, "module._orig_mod."), Origin::Timm),
        (prefixed(&timm, "model.backbone."), Origin::Timm),
        (prefixed(&timm, "something.of.theirs."), Origin::Timm),
        (inside, Origin::Timm),
        (ours.tensors.clone(), Origin::Timm),
        (hugging_face(&ours.tensors), Origin::HuggingFace),
        (torchvision(&ours.tensors), Origin::Torchvision),
    ] {
        let mut found = read(&tensors).unwrap();
        assert_eq!(found.origin, origin);
        assert!(
            found
                .notes
                .iter()
                .any(|note| note.contains("2 of 64 channels"))
        );
        let config = &mut found.checkpoint.config;
        assert_eq!(config.img_size, (28, 28));
        assert_eq!(
            config.layer_norm_eps == 1e-12,
            origin == Origin::HuggingFace
        );
        config.layer_norm_eps = ours.config.layer_norm_eps;
        assert!(logits(&found.checkpoint) == logits(&ours), "{origin:?}");
    }
}

#[test]
fn what_lies_beside_the_model_is_left_out_and_noted() {
    let ours = small(None);
    let mut tensors = prefixed(&fused(&ours.tensors), "model.");
    let one = Tensor::ones(1, candle_core::DType::F32, &Device::Cpu).unwrap();
    tensors.insert("accuracy.correct".into(), one);
    let found = read(&tensors).unwrap();
    let beside = "left out, since they lie beside model.: accuracy.correct";
    assert!(found.notes.iter().any(|note| note == beside));
    assert!(logits(&found.checkpoint) == logits(&ours));
}

#[test]
fn a_backbone_without_a_head_gets_one_by_num_classes_only() {
    let ours = small(None);
    let mut tensors: Tensors = hugging_face(&ours.tensors)
        .into_iter()
        .filter(|(name, _)| !name.starts_with("classifier."))
        .map(|(name, tensor)| (name.trim_start_matches("vit.").to_string(), tensor))
        .collect();
    let pooler = Tensor::ones((128, 128), candle_core::DType::F32, &Device::Cpu).unwrap();
    tensors.insert("pooler.dense.weight".into(), pooler);
    let text = read(&tensors).unwrap_err().to_string();
    assert!(
        text.contains("a ViT of Hugging Face transformers without a head; set num_classes"),
        "{text}"
    );
    let options = ImportOptions {
        num_classes: Some(7),
        ..ImportOptions::default()
    };
    let found = read_with(&tensors, &options).unwrap();
    assert_eq!(found.checkpoint.config.num_classes, 7);
    let left_out = "left out, since no classifier needs it: pooler.dense.weight";
    assert!(found.notes.iter().any(|note| note == left_out));
}

#[test]
fn a_deit_of_transformers_with_one_head_answers_by_its_class_token() {
    let config = ModelConfig {
        distilled: true,
        head_dist: false,
        decisions: None,
        ..small(None).config
    };
    let tensors = initial_tensors(&config, 4, 0.3).unwrap();
    assert!(!tensors.contains_key("head_dist.weight"));
    let ours = Checkpoint { config, tensors };
    let theirs: Tensors = hugging_face(&ours.tensors)
        .into_iter()
        .map(|(name, tensor)| match name.as_str() {
            "dist_token" => ("deit.embeddings.distillation_token".into(), tensor),
            _ => (name.replace("vit.", "deit."), tensor),
        })
        .collect();
    let mut found = read(&theirs).unwrap().checkpoint;
    assert!(found.config.distilled && !found.config.head_dist);
    found.config.layer_norm_eps = ours.config.layer_norm_eps;
    assert!(logits(&found) == logits(&ours));
    let images = images(&ours.config, 2, 0);
    let prepared = found.prepared(&Device::Cpu).unwrap();
    let dense = prepared
        .forward_dense(&images, &mut Workspace::default())
        .unwrap();
    let masked = found.model(&Device::Cpu).unwrap();
    let masked = masked.forward(&images, Capture::default()).unwrap();
    // Products in another order.
    assert!(difference(&dense, &masked.logits) < 1e-5);
    let folder = tempfile::tempdir().unwrap();
    found.save(folder.path()).unwrap();
    assert!(!Checkpoint::load(folder.path()).unwrap().config.head_dist);
}

#[test]
fn a_folder_of_the_hub_and_its_shards_are_read() {
    let ours = small(None);
    let theirs = hugging_face(&ours.tensors);
    let config = r#"{"model_type": "vit", "num_attention_heads": 2, "layer_norm_eps": 1e-6}"#;
    let mut names: Vec<&String> = theirs.keys().collect();
    names.sort();
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    std::fs::write(path("config.json"), config).unwrap();
    let mut map = serde_json::Map::new();
    for (shard, names) in names.chunks(names.len().div_ceil(3)).enumerate() {
        let file = format!("model-0000{}-of-00003.safetensors", shard + 1);
        let of_shard = names.iter();
        let tensors = of_shard
            .map(|name| ((*name).clone(), theirs[*name].clone()))
            .collect();
        write_tensors(&path(&file), &tensors).unwrap();
        for name in names {
            map.insert((*name).clone(), file.clone().into());
        }
    }
    let index = |map: &serde_json::Map<String, serde_json::Value>| {
        let text = serde_json::json!({ "metadata": {}, "weight_map": map }).to_string();
        std::fs::write(path("model.safetensors.index.json"), text).unwrap();
    };
    index(&map);
    let options = ImportOptions::default();
    for path in [
        folder.path().to_path_buf(),
        path("model.safetensors.index.json"),
    ] {
        let found = import(&path, &options).unwrap();
        assert_eq!(found.origin, Origin::HuggingFace);
        assert!(logits(&found.checkpoint) == logits(&ours));
    }
    let error = |path: &std::path::Path| import(path, &options).unwrap_err().to_string();
    let text = error(&path("model-00002-of-00003.safetensors"));
    assert!(text.contains("one file of several"), "{text}");
    map.insert(
        "more.weight".into(),
        "model-00001-of-00003.safetensors".into(),
    );
    index(&map);
    assert!(error(folder.path()).contains("expected more.weight in model-00001"));
    map.insert("more.weight".into(), "../outside.safetensors".into());
    index(&map);
    assert!(error(folder.path()).contains("expected files beside the index"));
    map.remove("more.weight");
    index(&map);
    std::fs::write(path("config.json"), "{").unwrap();
    assert!(error(&path("model.safetensors.index.json")).contains("config.json: not JSON"));
}
