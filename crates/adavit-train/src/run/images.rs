//! Opens the images of a run, and completes its settings by what images and dense checkpoint say.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use adavit_data::{
    CropMode, FASHION_SCENES, Found, KNOWN_NAMES, Labelled, OpenOptions, PictureSet, Preprocessing,
    SplitOptions, Splits, holds_unnamed_idx, load_splits, open, user_cache,
};
use adavit_model::{ImportOptions, Imported, ModelConfig, Stem, import};

use crate::config::fine_tune::FineTune;
use crate::config::model::ModelOptions;
use crate::config::train_config::TrainConfig;
use crate::error::{Error, Result};

/// Pictures that are looked at to find channels and size.
const SAMPLED: usize = 32;

/// The side of a patch that divides the sides of a scene.
const SCENE_PATCH: usize = 8;

/// The images of a run, and what is to be known of them.
#[derive(Debug)]
pub struct RunImages {
    /// The parts.
    pub splits: Splits,
    /// What was found and decided, a sentence each.
    pub notes: Vec<String>,
    /// How many pictures were left out.
    pub left_out: usize,
}

/// Opens the images that the settings name.
///
/// The settings are completed: with a dense checkpoint, `preset` and `model` become its sizes, except
/// those that are set; the number of classes is that of the images, and the head is new where the
/// classes are others. Without one, a model for pictures takes their channels, and a model for scenes
/// their size.
///
/// # Errors
/// If the images or the checkpoint are not found, or are not understood.
pub fn open_images(config: &mut TrainConfig) -> Result<RunImages> {
    let mut notes = Vec::new();
    let given = given_model(config)?;
    if let Some(given) = &given {
        let (preset, options) = ModelOptions::describing(given)?;
        config.preset = preset;
        config.model = config.model.over(&options);
    }
    if ImageSource::of(config).is_named() {
        let splits = load_splits(&config.data, config.data_dir.as_deref())?;
        match &given {
            Some(given) => {
                let classes = splits.train.class_names();
                notes.extend(complete_head(config, given, classes));
            }
            None if config.data == FASHION_SCENES => {
                notes.extend(complete_for_scenes(config, splits.train.as_ref())?);
            }
            None => {}
        }
        return Ok(RunImages {
            splits,
            notes,
            left_out: 0,
        });
    }
    let found = found(config, given.as_ref())?;
    notes.push(format!(
        "{}: {}; {}",
        config.data, found.format, found.classes
    ));
    notes.extend(left_out_note(&found));
    if let [only] = &found.class_names[..] {
        return Err(Error::Mismatch(format!(
            "data: expected pictures of at least 2 classes in {}, found one, {only:?}; give the folder whose \
             folders are the classes",
            config.data
        )));
    }
    let sampled = Sampled::of(&found)?;
    match &given {
        Some(given) => notes.extend(complete_head(config, given, &found.class_names)),
        None => complete_new(config, &found, &sampled)?,
    }
    let mut model = config.dense_model()?;
    notes.extend(channels_note(&sampled, model.in_chans));
    let of_checkpoint = given.and_then(|given| given.preprocessing);
    model.preprocessing = model.preprocessing.or(of_checkpoint);
    parts(config, &model, found, notes)
}

/// The parts of pictures that were found, as `model` takes them.
fn parts(
    config: &TrainConfig,
    model: &ModelConfig,
    found: Found,
    mut notes: Vec<String>,
) -> Result<RunImages> {
    notes.extend(parts_note(config, &found));
    let left_out = found.left_out.pictures();
    let splits = found.splits(&SplitOptions {
        input: model.input_config(),
        cache_bytes: config.cache_bytes,
        fast_decode: config.fast_decode,
        val_split: config.val_split,
        seed: config.seed,
    })?;
    Ok(RunImages {
        splits,
        notes,
        left_out,
    })
}

/// The images of an evaluation, and what is to be known of them.
#[derive(Debug)]
pub struct TestedImages {
    /// The images.
    pub images: Arc<dyn Labelled>,
    /// What was found and decided, a sentence each.
    pub notes: Vec<String>,
    /// How many pictures were left out.
    pub left_out: usize,
}

/// Opens the images of `source` that the model of `config` is evaluated on.
///
/// # Errors
/// If they are not found, or their classes cannot be those of the model.
pub fn open_tested(source: &ImageSource, config: &ModelConfig) -> Result<TestedImages> {
    if source.is_named() {
        let splits = load_splits(&source.data, source.data_dir.as_deref())?;
        return Ok(TestedImages {
            images: splits.test,
            notes: Vec::new(),
            left_out: 0,
        });
    }
    let mut notes = Vec::new();
    let found = opened_for(source, config, &mut notes)?;
    Ok(TestedImages {
        left_out: found.left_out.pictures(),
        images: Arc::new(found.tested(config.input_config())?),
        notes,
    })
}

/// Opens all parts of the images that the settings name, for a model that has its classes.
///
/// # Errors
/// If they are not found, or their classes cannot be those of the model.
pub fn open_parts(config: &TrainConfig, model: &ModelConfig) -> Result<RunImages> {
    let source = ImageSource::of(config);
    let mut notes = Vec::new();
    if source.is_named() {
        let splits = load_splits(&source.data, source.data_dir.as_deref())?;
        return Ok(RunImages {
            splits,
            notes,
            left_out: 0,
        });
    }
    let found = opened_for(&source, model, &mut notes)?;
    parts(config, model, found, notes)
}

/// Opens pictures whose classes are those of a model, and says what was found.
fn opened_for(source: &ImageSource, model: &ModelConfig, notes: &mut Vec<String>) -> Result<Found> {
    let options = OpenOptions {
        num_classes: Some(model.num_classes),
        class_names: model.class_names.clone(),
        class_map: source.class_map.clone(),
        cache: user_cache(),
        ..OpenOptions::default()
    };
    let found = open(Path::new(&source.data), &options)?;
    notes.push(format!(
        "{}: {}; {}",
        source.data, found.format, found.classes
    ));
    notes.extend(left_out_note(&found));
    notes.extend(channels_note(&Sampled::of(&found)?, model.in_chans));
    Ok(found)
}

/// Where images are.
#[derive(Debug, Clone, Default)]
pub struct ImageSource {
    /// A data set's name, or a path.
    pub data: String,
    /// The folder of a named data set's files.
    pub data_dir: Option<PathBuf>,
    /// A file that gives each folder or label its class.
    pub class_map: Option<PathBuf>,
}

impl ImageSource {
    fn of(config: &TrainConfig) -> Self {
        Self {
            data: config.data.clone(),
            data_dir: config.data_dir.clone(),
            class_map: config.class_map.clone(),
        }
    }

    /// Whether the images are found by their name, or are grey ones in IDX files whose classes have no
    /// names: [`load_splits`] opens them.
    fn is_named(&self) -> bool {
        let data = Path::new(&self.data);
        KNOWN_NAMES.contains(&self.data.as_str())
            || self.data_dir.is_some()
            || !data.exists()
            || (self.class_map.is_none() && holds_unnamed_idx(data))
    }
}

/// The configuration of the dense checkpoint to start from, if there is one.
fn given_model(config: &TrainConfig) -> Result<Option<ModelConfig>> {
    let Some(path) = &config.dense_checkpoint else {
        return Ok(None);
    };
    let options = ImportOptions {
        num_heads: config.model.num_heads,
        ..ImportOptions::default()
    };
    let imported = import_dense(path, &options)?;
    let found = &imported.checkpoint.config;
    let preset = config.dense_model()?;
    let same = (found.embed_dim, found.depth) == (preset.embed_dim, preset.depth);
    if !imported.num_heads_assumed || !same {
        return Ok(Some(imported.checkpoint.config));
    }
    // The configured preset says what the checkpoint does not.
    let options = ImportOptions {
        num_heads: Some(preset.num_heads),
        ..options
    };
    Ok(Some(import_dense(path, &options)?.checkpoint.config))
}

/// Imports a checkpoint without its distillation token, with which it could make no decisions.
pub(super) fn import_dense(path: &Path, options: &ImportOptions) -> Result<Imported> {
    let imported = import(path, options)?;
    if !imported.checkpoint.config.distilled {
        return Ok(imported);
    }
    let options = ImportOptions {
        drop_distillation: true,
        ..options.clone()
    };
    Ok(import(path, &options)?)
}

/// Opens pictures. Where their classes are those of the checkpoint, they have its numbers.
fn found(config: &TrainConfig, given: Option<&ModelConfig>) -> Result<Found> {
    let options = OpenOptions {
        class_map: config.class_map.clone(),
        cache: user_cache(),
        ..OpenOptions::default()
    };
    let path = Path::new(&config.data);
    let found = open(path, &options)?;
    let Some(known) = given
        .map(|given| &given.class_names)
        .filter(|_| config.fine_tune != FineTune::NewHead)
    else {
        return Ok(found);
    };
    if known.is_empty() || *known == found.class_names || !same(known, &found.class_names) {
        return Ok(found);
    }
    let options = OpenOptions {
        class_names: known.clone(),
        ..options
    };
    Ok(open(path, &options)?)
}

fn same(left: &[String], right: &[String]) -> bool {
    let set = |names: &[String]| names.iter().cloned().collect::<BTreeSet<_>>();
    set(left) == set(right)
}

/// Decides whether the checkpoint keeps its head, and whether the dense stage trains it first.
fn complete_head(config: &mut TrainConfig, given: &ModelConfig, classes: &[String]) -> Vec<String> {
    let asked = config
        .model
        .num_classes
        .filter(|asked| *asked != given.num_classes);
    let other = !given.class_names.is_empty() && given.class_names != classes;
    let why = if config.fine_tune == FineTune::NewHead {
        Some("as the settings say".to_owned())
    } else if asked.is_some() || given.num_classes != classes.len() {
        Some(format!("the checkpoint has {} classes", given.num_classes))
    } else if other {
        let first = |names: &[String]| names.iter().take(3).cloned().collect::<Vec<_>>().join(", ");
        let (of_data, of_checkpoint) = (first(classes), first(&given.class_names));
        Some(format!(
            "the checkpoint has other classes ({of_checkpoint}, ... instead of {of_data}, ...)"
        ))
    } else {
        None
    };
    if let Some(why) = why {
        config.model.num_classes = Some(asked.unwrap_or(classes.len()));
        config.fine_tune = FineTune::NewHead;
        return vec![format!(
            "a new head for {} classes: {why}; the dense stage trains the checkpoint first",
            classes.len()
        )];
    }
    let mut notes = Vec::new();
    if given.class_names.is_empty() {
        notes.push(format!(
            "the checkpoint keeps its head for {} classes, which has no names: their order is taken for \
             that of the data; set fine_tune to new_head if it is another",
            given.num_classes
        ));
    }
    notes.push(if config.fine_tune.is_off() {
        "the dense stage is skipped: the checkpoint has the data's classes; set the epochs to train it \
         first"
            .into()
    } else {
        "the dense stage trains the checkpoint first, since epochs are set".into()
    });
    notes
}

/// Completes the settings of a new model by what the pictures are.
fn complete_new(config: &mut TrainConfig, found: &Found, sampled: &Sampled) -> Result<()> {
    let options = &mut config.model;
    options.num_classes.get_or_insert(found.class_names.len());
    options
        .in_chans
        .get_or_insert(if sampled.grey { 1 } else { 3 });
    let img_size = config.dense_model()?.img_size;
    if sampled.size == Some(img_size) && config.dense_model()?.preprocessing.is_none() {
        // Pictures of the model's size are taken as they are.
        config.model.preprocessing = Some(Preprocessing {
            crop_pct: 1.0,
            crop_mode: CropMode::Center,
            ..Preprocessing::default()
        });
    }
    Ok(())
}

/// Completes the settings of a new model by the size of scenes, unless they say a size. Patches that do
/// not divide it become smaller or larger ones that do.
fn complete_for_scenes(config: &mut TrainConfig, scenes: &dyn Labelled) -> Result<Option<String>> {
    let model = config.dense_model()?;
    let [channels, height, width] = scenes.dims();
    if config.model.img_size.is_some() || model.img_size == (height, width) {
        return Ok(None);
    }
    let fixed = config.model.patch_size.is_some();
    let options = &mut config.model;
    options.img_size = Some((height, width));
    options.in_chans.get_or_insert(channels);
    options
        .num_classes
        .get_or_insert(scenes.class_names().len());
    if let Stem::Patches { patch_size } = model.stem
        && !(fixed || height.is_multiple_of(patch_size))
    {
        options.patch_size = Some(SCENE_PATCH);
    }
    let patch_size = config.dense_model()?.stem.patch_size();
    Ok(Some(format!(
        "{FASHION_SCENES}: the model takes {width}x{height} pixels in patches of {patch_size}; the [model] \
         table of a configuration can set other patches"
    )))
}

/// What some pictures have in common.
struct Sampled {
    /// Whether all are grey, however they are stored.
    grey: bool,
    /// The size of all, if they have one.
    size: Option<(usize, usize)>,
}

impl Sampled {
    fn of(found: &Found) -> Result<Self> {
        let set = found
            .parts()
            .next()
            .ok_or_else(|| Error::Mismatch("data: expected pictures, found none".into()))?;
        let mut sampled = Self {
            grey: true,
            size: None,
        };
        let mut first = true;
        for index in spaced(set) {
            // Broken pictures are reported where they are needed.
            let Ok(picture) = set.picture(index, 3) else {
                continue;
            };
            sampled.grey &= picture.is_grey();
            let same = first || sampled.size == Some(picture.size());
            sampled.size = same.then_some(picture.size());
            first = false;
        }
        Ok(sampled)
    }
}

/// Indices that are spread over a set.
fn spaced(set: &PictureSet) -> impl Iterator<Item = usize> + use<> {
    (0..set.len()).step_by(set.len().div_ceil(SAMPLED).max(1))
}

fn left_out_note(found: &Found) -> Option<String> {
    let lines = found.left_out.to_string().replace('\n', "; ");
    (!found.left_out.is_empty()).then(|| format!("left out: {lines}"))
}

fn channels_note(sampled: &Sampled, in_chans: usize) -> Option<String> {
    match (sampled.grey, in_chans) {
        (true, 3) => Some("grey pictures for a model of colours: grey is repeated".into()),
        (false, 1) => Some(
            "pictures in colours for a grey model: 0.299 red + 0.587 green + 0.114 blue is taken"
                .into(),
        ),
        _ => None,
    }
}

fn parts_note(config: &TrainConfig, found: &Found) -> Option<String> {
    let only = found.val.is_none() && found.test.is_none();
    only.then(|| {
        format!(
            "the data have one part: {} of the pictures are the test set (val_split)",
            config.val_split
        )
    })
}
