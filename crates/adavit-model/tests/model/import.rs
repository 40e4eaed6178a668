//! Checkpoints of others: the same model under other names gives the same logits.

use adavit_decision::DecisionConfig;
use adavit_model::{
    Capture, Checkpoint, ImportOptions, Imported, ModelConfig, Origin, Tensors, Workspace, import,
    initial_tensors, write_tensors,
};
use candle_core::{Device, Tensor};

use crate::common::{difference, file, images, values};

fn small(decisions: Option<DecisionConfig>) -> Checkpoint {
    let config = ModelConfig {
        embed_dim: 128,
        num_heads: 2,
        depth: 2,
        decisions,
        ..ModelConfig::preset("nano_patch7_28").unwrap()
    };
    let tensors = initial_tensors(&config, 4, 0.3).unwrap();
    Checkpoint { config, tensors }
}

fn logits(checkpoint: &Checkpoint) -> Vec<f32> {
    let images = images(&checkpoint.config, 2, 0);
    let model = checkpoint.model(&Device::Cpu).unwrap();
    let output = model.forward(&images, Capture::default()).unwrap();
    values(&output.logits)
}

/// As timm has them: query, key and value in one tensor.
fn fused(tensors: &Tensors) -> Tensors {
    let mut fused = Tensors::new();
    for (name, tensor) in tensors {
        let Some((stem, kind)) = name.split_once(".attn.query.") else {
            if !name.contains(".attn.key.") && !name.contains(".attn.value.") {
                fused.insert(name.clone(), tensor.clone());
            }
            continue;
        };
        let part = |part: &str| &tensors[&format!("{stem}.attn.{part}.{kind}")];
        let qkv = Tensor::cat(&[part("query"), part("key"), part("value")], 0);
        fused.insert(format!("{stem}.attn.qkv.{kind}"), qkv.unwrap());
    }
    fused
}

/// As transformers has them.
fn hugging_face(tensors: &Tensors) -> Tensors {
    let parts = [
        (".norm1.", ".layernorm_before."),
        (".norm2.", ".layernorm_after."),
        (".attn.query.", ".attention.attention.query."),
        (".attn.key.", ".attention.attention.key."),
        (".attn.value.", ".attention.attention.value."),
        (".attn.proj.", ".attention.output.dense."),
        (".mlp.fc1.", ".intermediate.dense."),
        (".mlp.fc2.", ".output.dense."),
    ];
    let rename = |name: &str| {
        let name = match name {
            "cls_token" => "vit.embeddings.cls_token".into(),
            "pos_embed" => "vit.embeddings.position_embeddings".into(),
            _ => name
                .replace(
                    "patch_embed.proj.",
                    "vit.embeddings.patch_embeddings.projection.",
                )
                .replace("blocks.", "vit.encoder.layer."),
        };
        let name = parts.iter().fold(name, |name: String, (own, theirs)| {
            name.replace(own, theirs)
        });
        if let Some(kind) = name.strip_prefix("norm.") {
            format!("vit.layernorm.{kind}")
        } else if let Some(kind) = name.strip_prefix("head.") {
            format!("classifier.{kind}")
        } else {
            name
        }
    };
    let named = tensors.iter();
    named
        .map(|(name, tensor)| (rename(name), tensor.clone()))
        .collect()
}

fn written(tensors: &Tensors) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    write_tensors(&folder.path().join("weights.safetensors"), tensors).unwrap();
    folder
}

fn read_with(tensors: &Tensors, options: &ImportOptions) -> adavit_model::Result<Imported> {
    import(
        &written(tensors).path().join("weights.safetensors"),
        options,
    )
}

fn read(tensors: &Tensors) -> adavit_model::Result<Imported> {
    read_with(tensors, &ImportOptions::default())
}

/// As torchvision has them.
fn torchvision(tensors: &Tensors) -> Tensors {
    let parts = [
        ("cls_token", "class_token"),
        ("pos_embed", "encoder.pos_embedding"),
        ("patch_embed.proj.", "conv_proj."),
        ("blocks.", "encoder.layers.encoder_layer_"),
        (".norm1.", ".ln_1."),
        (".norm2.", ".ln_2."),
        (".attn.qkv.", ".self_attention.in_proj_"),
        (".attn.proj.", ".self_attention.out_proj."),
        (".mlp.fc1.", ".mlp.0."),
        (".mlp.fc2.", ".mlp.3."),
    ];
    let rename = |name: &str| match name.split_once('.') {
        Some(("norm", kind)) => format!("encoder.ln.{kind}"),
        Some(("head", kind)) => format!("heads.head.{kind}"),
        _ => parts.iter().fold(name.to_string(), |name, (ours, theirs)| {
            name.replace(ours, theirs)
        }),
    };
    let named = fused(tensors).into_iter();
    named
        .map(|(name, tensor)| (rename(&name), tensor))
        .collect()
}

fn prefixed(tensors: &Tensors, prefix: &str) -> Tensors {
    let named = tensors.iter();
    named
        .map(|(name, tensor)| (format!("{prefix}{name}"), tensor.clone()))
        .collect()
}

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
