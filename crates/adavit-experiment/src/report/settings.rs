//! The settings of a run as tables: what it was asked for, and how each stage was trained.

use adavit_train::{ClassWeights, StageConfig, TrainConfig, UsageWeights};

use crate::error::{Error, Result};
use crate::report::calibration::calibrated_from;
use crate::report::html::{Cell, Page, Table, TableKind};

/// Writes the settings of a run; `steps_per_epoch` is known once an epoch is finished.
pub(super) fn settings(
    page: &mut Page,
    config: &TrainConfig,
    steps_per_epoch: Option<u64>,
) -> Result<()> {
    page.heading("Settings");
    let mut rows = vec![
        ("model", model(config)?),
        ("data", config.data.clone()),
        ("budget", budget(config)),
        ("calibration", calibration(config, steps_per_epoch)),
        ("seed", config.seed.to_string()),
        ("batch size", config.batch_size.to_string()),
        ("steps", steps(config)),
        (
            "held-out images",
            format!("{} of the training images", config.held_out),
        ),
        ("augmentation", augmentation(config)),
        ("distillation", distillation(config)),
        ("gates", gates(config)),
        ("budget loss", budget_loss(&config.usage)),
        ("device", device(config)),
    ];
    if let Some(weights) = &config.class_weights {
        rows.insert(rows.len() - 1, ("class weights", class_weights(weights)));
    }
    let rows = rows.into_iter();
    let rows = rows.map(|(name, value)| vec![Cell::text(name), Cell::text(value)]);
    page.table(&Table {
        head: vec!["setting".into(), "value".into()],
        rows: rows.collect(),
        kind: TableKind::Words,
    });
    stages(page, config);
    page.details("All settings (config.toml)", &config.to_toml()?);
    Ok(())
}

/// The preset, and what of it is changed.
fn model(config: &TrainConfig) -> Result<String> {
    let changes = toml::Table::try_from(&config.model).map_err(|error| Error::Encode {
        what: "the settings of the model",
        message: error.to_string(),
    })?;
    let changes = changes
        .iter()
        .map(|(key, value)| format!("{key} = {value}"));
    let all: Vec<String> = std::iter::once(config.preset.clone())
        .chain(changes)
        .collect();
    Ok(all.join(", "))
}

fn budget(config: &TrainConfig) -> String {
    config.targets.map_or_else(
        || {
            let elastic = config.elastic.map_or("", |_| ", of an elastic model");
            format!("{} of the dense model's MACs{elastic}", config.budget)
        },
        |targets| {
            format!(
                "targets per axis: tokens {}, heads {}, blocks {}",
                targets.tokens, targets.heads, targets.blocks
            )
        },
    )
}

fn calibration(config: &TrainConfig, steps_per_epoch: Option<u64>) -> String {
    if config.targets.is_some() {
        return "none: targets per axis keep the thresholds of the settings".into();
    }
    if config.elastic.is_some() {
        return "none: an elastic model takes the budget as an input".into();
    }
    let first = steps_per_epoch.and_then(|steps| calibrated_from(config, steps));
    first.map_or_else(
        || "in the last part of the adaptive stage".into(),
        |epoch| format!("after each epoch of the adaptive stage from epoch {epoch} on"),
    )
}

fn steps(config: &TrainConfig) -> String {
    config.max_steps.map_or_else(
        || "all of each epoch".into(),
        |steps| format!("at most {steps} in each stage"),
    )
}

fn augmentation(config: &TrainConfig) -> String {
    let augment = &config.augment;
    let mut parts = Vec::new();
    if augment.crop_padding > 0 {
        parts.push(format!(
            "random crop after padding by {} pixels",
            augment.crop_padding
        ));
    }
    if augment.flip {
        parts.push("horizontal flip".into());
    }
    if augment.random_erasing > 0.0 {
        parts.push(format!("random erasing {}", augment.random_erasing));
    }
    listed(&parts)
}

fn distillation(config: &TrainConfig) -> String {
    let terms = &config.distillation;
    let mut parts = Vec::new();
    if terms.logits > 0.0 {
        parts.push(format!(
            "soft targets {} at temperature {}",
            terms.logits, terms.temperature
        ));
    }
    if terms.hidden > 0.0 {
        parts.push(format!("hidden states {}", terms.hidden));
    }
    if terms.attention > 0.0 {
        parts.push(format!("attention {}", terms.attention));
    }
    listed(&parts)
}

fn gates(config: &TrainConfig) -> String {
    let (gates, decisions) = (&config.gates, &config.decisions);
    let mut axes = Vec::new();
    if decisions.ada_token {
        let first = decisions.ada_token_start_layer + 1;
        axes.push(format!("tokens from block {first} on"));
    }
    let first = decisions.keep_layers + 1;
    if decisions.ada_head.is_some() {
        axes.push(format!("heads from block {first} on"));
    }
    if decisions.ada_layer {
        axes.push(format!("attention and MLP from block {first} on"));
    }
    let (start, end) = (gates.temperature.at(0.0), gates.temperature.at(1.0));
    let temperature = if start == end {
        format!("temperature {start}")
    } else {
        format!("temperature {start} to {end}")
    };
    format!(
        "{}; {temperature}, first logit {}",
        listed(&axes),
        gates.keep_logit
    )
}

fn budget_loss(usage: &UsageWeights) -> String {
    let weights = [
        ("tokens", usage.tokens),
        ("heads", usage.heads),
        ("blocks", usage.blocks),
        ("MACs", usage.macs),
        ("diverse", usage.diverse),
        ("entropy", usage.entropy),
        ("minimum", usage.minimum_weight),
    ];
    let used = weights.into_iter().filter(|(_, weight)| *weight != 0.0);
    let weights: Vec<String> = used
        .map(|(name, weight)| format!("{name} {weight}"))
        .collect();
    format!(
        "weights: {}; they rise from {} to {} of the adaptive stage",
        listed(&weights),
        usage.ramp.start,
        usage.ramp.end
    )
}

fn class_weights(weights: &ClassWeights) -> String {
    match weights {
        ClassWeights::Balanced => "balanced".into(),
        ClassWeights::Given(weights) => {
            let weights: Vec<String> = weights.iter().map(f64::to_string).collect();
            listed(&weights)
        }
    }
}

fn device(config: &TrainConfig) -> String {
    let threads = config.threads;
    let threads = threads.map_or_else(String::new, |n| format!(", {n} threads"));
    format!("{}{threads}", config.device)
}

fn listed(parts: &[String]) -> String {
    if parts.is_empty() {
        "none".into()
    } else {
        parts.join(", ")
    }
}

/// A setting of a stage that the report leaves out where both stages have its default.
type Rare = (&'static str, fn(&StageConfig) -> f64, f64);

const RARELY_SET: [Rare; 5] = [
    ("stochastic depth", |stage| stage.drop_path, 0.0),
    (
        "dropout of the token module",
        |stage| stage.token_dropout,
        0.0,
    ),
    ("batches of a step", |stage| stage.accum_steps as f64, 1.0),
    (
        "learning rate of a block over that of the next",
        |stage| stage.optimizer.layer_decay,
        1.0,
    ),
    (
        "frozen backbone (0: no, 1: yes)",
        |stage| f64::from(u8::from(stage.freeze)),
        0.0,
    ),
];

/// The settings that each stage has for itself.
fn stages(page: &mut Page, config: &TrainConfig) {
    let value = |name: &str, of: fn(&StageConfig) -> f64| {
        let values = [of(&config.dense), of(&config.adaptive)];
        let values = values.map(|value| Cell::text(value.to_string()));
        [vec![Cell::text(name)], values.to_vec()].concat()
    };
    let decision_lr = vec![
        Cell::text("learning rate of decision networks"),
        Cell::text("-"),
        Cell::text(config.adaptive.optimizer.decision_lr.to_string()),
    ];
    let mut rows = vec![
        value("epochs", |stage| stage.epochs as f64),
        value("epochs of warm-up", |stage| stage.warmup_epochs),
        value("learning rate", |stage| stage.optimizer.lr),
        decision_lr,
        value("factor at the end of the cosine", |stage| {
            stage.min_lr_factor
        }),
        value("weight decay", |stage| stage.optimizer.weight_decay),
        value("largest gradient norm (0: any)", |stage| {
            stage.optimizer.max_grad_norm
        }),
        value("label smoothing", |stage| stage.label_smoothing),
        value("decay of averaged weights", |stage| stage.ema_decay),
    ];
    let unlike = |of: fn(&StageConfig) -> f64, default: f64| {
        [&config.dense, &config.adaptive].map(of) != [default; 2]
    };
    for (name, of, default) in RARELY_SET {
        if unlike(of, default) {
            rows.push(value(name, of));
        }
    }
    if let Some(checkpoint) = &config.dense_checkpoint {
        for row in &mut rows {
            row[1] = Cell::text("-");
        }
        page.paragraph(&format!(
            "The dense model was not trained in this run: it comes from the checkpoint {}.",
            checkpoint.display()
        ));
    }
    page.table(&Table {
        head: ["setting", "dense stage", "adaptive stage"]
            .map(String::from)
            .to_vec(),
        rows,
        kind: TableKind::Numbers,
    });
}
