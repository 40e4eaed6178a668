//! The settings of a run: defaults, then the configuration file, then `--set`, then other options.

use std::path::{Path, PathBuf, absolute};

use adavit_data::KNOWN_NAMES;
use adavit_train::{Error, FineTune, Targets, TrainConfig, run_config};
use anyhow::Result;

use crate::commands::train::args::TrainArgs;
use crate::exit::bad_input;
use crate::values::overridden;

/// The settings of a run, and its folder if one was given.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) config: TrainConfig,
    pub(super) out: Option<PathBuf>,
}

impl Settings {
    /// Reads the settings of the run in `run`; its images may lie elsewhere now.
    pub(super) fn resumed(run: &Path, args: &TrainArgs) -> Result<Self> {
        let mut config = run_config(run)?;
        if let Some(data) = args.images.as_ref().or(args.data.as_ref()) {
            config.data.clone_from(data);
            config.data_dir = None;
            // A path as it is given now, not one of the run.
            if !KNOWN_NAMES.contains(&data.as_str()) {
                config.data = absolute(Path::new(data))?.to_string_lossy().into_owned();
            }
        }
        config.data_dir = args.data_dir.clone().or(config.data_dir);
        Ok(Self { config, out: None })
    }

    /// Reads the configuration file, and lays the options over it.
    pub(super) fn of(args: &TrainArgs) -> Result<Self> {
        let mut config = layered(args)?;
        set(
            &mut config.data,
            args.images.as_ref().or(args.data.as_ref()),
        );
        set(&mut config.val_split, args.val_split.as_ref());
        set(&mut config.preset, args.preset.as_ref());
        set(&mut config.budget, args.budget.as_ref());
        set(&mut config.batch_size, args.batch_size.as_ref());
        set(&mut config.seed, args.seed.as_ref());
        set(&mut config.device, args.machine.device.as_ref());
        for stage in [&mut config.dense, &mut config.adaptive] {
            set(&mut stage.epochs, args.epochs.as_ref());
            set(&mut stage.optimizer.lr, args.lr.as_ref());
        }
        set(&mut config.keep, args.keep.as_ref());
        config.tensorboard |= args.tensorboard;
        let given = args.clone();
        config.data_dir = given.data_dir.or(config.data_dir);
        config.class_map = given.class_map.or(config.class_map);
        config.workers = given.workers.or(config.workers);
        config.dense_checkpoint = given.from.or(config.dense_checkpoint);
        let asked = config.dense_checkpoint.is_some() && given.epochs.is_some();
        if asked && config.fine_tune == FineTune::Off {
            config.fine_tune = FineTune::On;
        }
        config.max_steps = given.max_steps.or(config.max_steps);
        config.patience = given.patience.or(config.patience);
        config.model.img_size = given.img_size.or(config.model.img_size);
        config.model.num_classes = given.num_classes.or(config.model.num_classes);
        set_targets(&mut config, args);
        let out = given.out.or(config.out.take());
        config.validate()?;
        Ok(Self { config, out })
    }
}

/// The configuration file, and over it each `--set`.
fn layered(args: &TrainArgs) -> Result<TrainConfig> {
    let file = match &args.config {
        Some(path) => std::fs::read_to_string(path)
            .map_err(|error| bad_input(format!("reading {}: {error}", path.display())))?,
        None => String::new(),
    };
    let in_file = |error: Error| match &args.config {
        Some(path) => bad_input(format!("{}: {error}", path.display())),
        None => error.into(),
    };
    let config = TrainConfig::from_toml(&file).map_err(in_file)?;
    if args.set.is_empty() {
        return Ok(config);
    }
    overridden(&file, &args.set)
}

/// Lets an option that was given override a setting.
fn set<T: Clone>(setting: &mut T, option: Option<&T>) {
    if let Some(value) = option {
        setting.clone_from(value);
    }
}

/// The three targets replace the budget, and the budget replaces the targets.
fn set_targets(config: &mut TrainConfig, args: &TrainArgs) {
    if let (Some(tokens), Some(heads), Some(blocks)) =
        (args.target_tokens, args.target_heads, args.target_blocks)
    {
        config.targets = Some(Targets {
            tokens,
            heads,
            blocks,
        });
    } else if args.budget.is_some() {
        config.targets = None;
    }
}
