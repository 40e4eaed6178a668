//! Paths in a run's settings, which a resume has to find from any folder.
//!
//! `config.toml` holds them as absolute paths. Relative to the run folder they would be wrong as soon
//! as that folder alone is moved, or its `config.toml` starts another run; and a path that was moved
//! together with the run is given again. Names of data sets stay names.

use std::path::{Component, Path, PathBuf};

use adavit_data::{FASHION_SCENES, KNOWN_NAMES, Splits, load_splits};

use crate::config::fine_tune::FineTune;
use crate::config::train_config::TrainConfig;
use crate::error::{Error, Result};
use crate::run::images::open_images;

/// The data set that is found in the current folder or around it, if no place is given.
const SHIPPED: &str = "fashion-mnist-subset";

/// The settings, with every path absolute.
pub(crate) fn with_absolute_paths(config: &TrainConfig) -> TrainConfig {
    let mut config = config.clone();
    if !KNOWN_NAMES.contains(&config.data.as_str())
        && let Some(path) = absolute(Path::new(&config.data)).to_str()
    {
        config.data = path.into();
    }
    for path in [
        &mut config.data_dir,
        &mut config.dense_checkpoint,
        &mut config.class_map,
    ] {
        *path = path.as_deref().map(absolute);
    }
    config
}

/// Opens the images of the run in the folder `run`, whose settings are `config`.
///
/// # Errors
/// If they are not found: where a path of an older run is relative, the error says so.
pub fn load_data(run: &Path, config: &TrainConfig) -> Result<Splits> {
    let mut completed = config.clone();
    let kept = run.join("dense");
    if config.dense_checkpoint.is_some() && kept.exists() {
        // It has the new head already, and may be all that is left of the checkpoint.
        completed.dense_checkpoint = Some(kept);
        if completed.fine_tune == FineTune::NewHead {
            completed.fine_tune = FineTune::On;
        }
    }
    let error = match open_images(&mut completed) {
        Ok(images) => return Ok(images.splits),
        Err(error) => error,
    };
    let data = Path::new(&config.data);
    let named = KNOWN_NAMES.contains(&config.data.as_str());
    let places = [
        ("data", (!named).then_some(data)),
        ("data_dir", config.data_dir.as_deref()),
    ];
    for (setting, path) in places {
        let Some(path) = path else { continue };
        if path.is_relative() {
            return Err(Error::Setting(format!(
                "{setting}: {} of this run is relative to the folder that the run was started in; \
                 resume from there, or give the images' place ({error})",
                path.display()
            )));
        }
        if !path.exists() {
            return Err(Error::Setting(format!(
                "{setting}: expected the run's images in {}, which is not there; give their place",
                path.display()
            )));
        }
    }
    shipped_around(run, config).unwrap_or(Err(error))
}

/// The data set of the repository that the run folder lies in, or scenes of its garments; none if it lies
/// in no such.
fn shipped_around(run: &Path, config: &TrainConfig) -> Option<Result<Splits>> {
    let run = run.canonicalize().ok()?;
    if ![SHIPPED, FASHION_SCENES].contains(&config.data.as_str()) || config.data_dir.is_some() {
        return None;
    }
    let holds = |root: &&Path| root.join("data").join(SHIPPED).is_dir();
    let root = run.ancestors().find(holds)?;
    Some(load_splits(&config.data, Some(root)).map_err(Error::from))
}

/// An absolute path, in which links stay links unless a `..` follows them.
fn absolute(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    if absolute
        .components()
        .any(|part| part == Component::ParentDir)
    {
        return absolute.canonicalize().unwrap_or(absolute);
    }
    absolute
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_absolute_and_names_stay() {
        let config = TrainConfig {
            data: "src/../tests".into(),
            data_dir: Some("src".into()),
            ..TrainConfig::default()
        };
        let kept = with_absolute_paths(&config);
        let here = std::env::current_dir().unwrap();
        assert_eq!(
            Path::new(&kept.data),
            here.canonicalize().unwrap().join("tests")
        );
        assert_eq!(kept.data_dir, Some(here.join("src")));
        let named = with_absolute_paths(&TrainConfig::default());
        assert_eq!(named, TrainConfig::default());
    }

    #[test]
    fn a_relative_path_of_an_older_run_is_named_with_its_setting() {
        let mut config = TrainConfig {
            data: "no/such".into(),
            ..TrainConfig::default()
        };
        let error = load_data(Path::new("."), &config).unwrap_err().to_string();
        assert!(
            error.starts_with("data: no/such of this run is relative"),
            "{error}"
        );
        config.data = std::env::temp_dir().join("no/such").display().to_string();
        let error = load_data(Path::new("."), &config).unwrap_err();
        assert!(error.is_input_error());
        assert!(error.to_string().contains("which is not there"), "{error}");
    }

    #[test]
    fn the_shipped_images_are_found_around_the_run_folder() {
        let folder = tempfile::tempdir().unwrap();
        let config = TrainConfig::default();
        assert!(shipped_around(folder.path(), &config).is_none());
        let run = Path::new(env!("CARGO_MANIFEST_DIR"));
        for (data, images) in [(SHIPPED, 10_000), (FASHION_SCENES, 40_000)] {
            let config = TrainConfig {
                data: data.into(),
                ..TrainConfig::default()
            };
            let found = shipped_around(run, &config).unwrap().unwrap();
            assert_eq!(found.train.len(), images);
        }
    }
}
