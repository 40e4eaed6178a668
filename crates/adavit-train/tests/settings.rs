//! Contract: every setting of training changes what is learnt, except those that only say where, how
//! often or how fast something is done.
#![expect(
    clippy::unwrap_used,
    reason = "the helpers here are test code, which clippy does not see"
)]

use std::fs;
use std::path::Path;

use adavit_testing::{config, made_images, run, summary};
use adavit_train::{TrainConfig, merge};
use toml::Table;

/// Settings as in a file, none with the default's or the base's value.
const CHANGES: [&str; 72] = [
    "seed = 1",
    "budget = 0.8",
    "batch_size = 24",
    "held_out = 0.3",
    "class_weights = [3, 1, 1, 1, 1, 1, 1, 1, 1, 1]",
    "max_steps = 3",
    "[targets]\ntokens = 0.5\nheads = 0.6\nblocks = 0.7",
    "[model]\npatch_size = 7",
    "[model]\nnum_classes = 3",
    "[model]\nembed_dim = 32",
    "[model]\ndepth = 2",
    "[model]\nnum_heads = 4",
    "[model]\nmlp_ratio = 2.0",
    "[model]\nqkv_bias = false",
    "[model]\npos_embed = \"sinusoid\"",
    "[decisions]\nada_token = false",
    "[decisions]\nada_token_with_mlp = false",
    "[decisions]\nada_token_start_layer = 1",
    "[decisions]\nada_head = \"partial\"",
    "[decisions]\nada_head = \"head_v2\"",
    "[decisions]\nada_head = \"off\"",
    "[decisions]\nada_layer = false",
    "[decisions]\nkeep_layers = 0",
    "[decisions]\nnorm_policy = true",
    "[decisions.thresholds]\ntokens = 0.3",
    "[decisions.thresholds]\nheads = 0.3",
    "[decisions.thresholds]\nblocks = 0.3",
    "[augment]\ncrop_padding = 0",
    "[augment]\nflip = false",
    "[augment]\nrandom_erasing = 1.0",
    "[dense]\nwarmup_epochs = 0.0",
    "[dense]\nmin_lr_factor = 0.5",
    "[dense]\nlabel_smoothing = 0.0",
    "[dense]\nema_decay = 0.0",
    "[dense]\ndrop_path = 0.5",
    "[dense]\nfreeze = true",
    "[dense]\naccum_steps = 2",
    "[dense.optimizer]\nlr = 0.01",
    "[dense.optimizer]\nlayer_decay = 0.5",
    "[dense.optimizer]\nweight_decay = 0.5",
    "[dense.optimizer]\nbeta1 = 0.5",
    "[dense.optimizer]\nbeta2 = 0.9",
    "[dense.optimizer]\neps = 0.001",
    "[dense.optimizer]\nmax_grad_norm = 0.01",
    "[adaptive]\nwarmup_epochs = 0.0",
    "[adaptive]\nmin_lr_factor = 0.5",
    "[adaptive]\nlabel_smoothing = 0.0",
    "[adaptive]\nema_decay = 0.0",
    "[adaptive]\ndrop_path = 0.5",
    "[adaptive]\nfreeze = true",
    "[adaptive]\naccum_steps = 2",
    "[adaptive.optimizer]\nlr = 0.01",
    "[adaptive.optimizer]\ndecision_lr = 0.1",
    "[adaptive.optimizer]\nlayer_decay = 0.5",
    "[gates]\ntemperature = { schedule = \"cosine\", start = 3.0, end = 1.0 }",
    "[gates]\nkeep_logit = 0.5",
    "[gates.noise_end]\nstart = 0.0\nend = 0.5",
    "[usage.ramp]\nstart = 0.4\nend = 0.9",
    "[usage]\ntokens = 20.0",
    "[usage]\nheads = 20.0",
    "[usage]\nblocks = 20.0",
    "[usage]\nmacs = 20.0",
    "[usage]\ntokens_deviation = \"absolute\"",
    "[usage]\nheads_deviation = \"absolute\"",
    "[usage]\nblocks_deviation = \"absolute\"",
    "[usage]\ndiverse = 3.0",
    "[usage]\nentropy = 3.0",
    "[usage]\nminimum = 1.0\nminimum_weight = 3.0",
    "[distillation]\nlogits = 0.9",
    "[distillation]\nhidden = 3.0",
    "[distillation]\nattention = 3.0",
    "[distillation]\ntemperature = 5.0",
];

/// A small T2T-ViT; its token module is nearly all of it.
const T2T: &str = "preset = \"t2t_vit_7\"\nbudget = 0.999\n[model]\npatch_size = 16\n\
                   img_size = [28, 28]\nin_chans = 1\nnum_classes = 2";

/// Settings that need others: the others, then what is added to them.
const PAIRS: [(&str, &str); 5] = [
    (T2T, "[dense]\ntoken_dropout = 0.1"),
    (T2T, "[adaptive]\ntoken_dropout = 0.1"),
    (
        "budget = 0.8\n[model]\npatch_size = 4",
        "preset = \"nano_conv_patch4_28\"",
    ),
    (
        "[model]\npatch_size = 4",
        "[model]\nconv_stem = { channels = [4, 8], strides = [2, 2] }",
    ),
    (
        "[usage]\nmacs = 20.0",
        "[usage]\nmacs_deviation = \"absolute\"",
    ),
];

/// The weights after two steps of each stage.
fn learnt(config: &TrainConfig, out: &Path) -> Vec<u8> {
    summary(run(config, out, &mut |_| ()).unwrap());
    let files = ["last", "dense", "best"].map(|folder| out.join(folder).join("model.safetensors"));
    files
        .iter()
        .flat_map(|file| fs::read(file).unwrap())
        .collect()
}

#[test]
fn every_setting_changes_what_two_steps_learn() {
    let folder = tempfile::tempdir().unwrap();
    let mut base = config(&made_images(folder.path()));
    base.max_steps = Some(2);
    base.random_policies = 1;
    let expected = learnt(&base, &folder.path().join("base"));
    let base: Table = base.to_toml().unwrap().parse().unwrap();
    let mut runs = 0;
    let mut with = |changes: &[&str]| {
        let mut table = base.clone();
        for change in changes {
            merge(&mut table, change.parse().unwrap());
        }
        let changed = TrainConfig::from_toml(&table.to_string()).unwrap();
        runs += 1;
        learnt(&changed, &folder.path().join(format!("changed-{runs}")))
    };
    for change in CHANGES {
        let found = with(&[change]);
        assert!(found != expected, "this changes nothing:\n{change}");
    }
    for (others, change) in PAIRS {
        let (alone, found) = (with(&[others]), with(&[others, change]));
        assert!(found != alone, "this changes nothing:\n{change}");
    }
}
