//! Whether a training downloads its data: only then is the hub's client built, which doubles the
//! number of crates.

use std::path::{Path, PathBuf};

/// Data sets that come from the Hugging Face hub unless their folder is given.
const FROM_HUB: [&str; 2] = ["fashion-mnist", "mnist"];

/// Whether `adavit train OPTIONS` takes its images from the hub.
///
/// Options override the settings' file, as in `adavit train`. A file that cannot be read is left to
/// `adavit`, whose error says what is wrong with it.
pub(crate) fn is_needed(options: &[String]) -> bool {
    let settings = settings(options).unwrap_or_default();
    let setting = |key: &str| settings.get(key).and_then(toml::Value::as_str);
    let data = value(options, "--data")
        .or(first_argument(options))
        .or(set(options, "data"))
        .or(setting("data"));
    let data_dir = value(options, "--data-dir")
        .or(set(options, "data_dir"))
        .or(setting("data_dir"));
    data_dir.is_none() && data.is_some_and(|name| FROM_HUB.contains(&name))
}

/// The table that `--config` or the run of `--resume` holds.
fn settings(options: &[String]) -> Option<toml::Table> {
    let resumed = value(options, "--resume").map(|run| Path::new(run).join("config.toml"));
    let path = resumed.or_else(|| value(options, "--config").map(PathBuf::from))?;
    std::fs::read_to_string(path).ok()?.parse().ok()
}

/// The value of an option, as `--name value` or `--name=value`.
fn value<'a>(options: &'a [String], name: &str) -> Option<&'a str> {
    let mut options = options.iter();
    while let Some(option) = options.next() {
        if option == name {
            return options.next().map(String::as_str);
        }
        if let Some(value) = option
            .strip_prefix(name)
            .and_then(|rest| rest.strip_prefix('='))
        {
            return Some(value);
        }
    }
    None
}

/// Options of `adavit train` without a value.
const FLAGS: [&str; 4] = ["--force", "--json", "--quiet", "--tensorboard"];

/// The argument that is no option, nor the value of one.
fn first_argument(options: &[String]) -> Option<&str> {
    let is_value = |before: Option<&String>| {
        let option = before.filter(|before| before.starts_with("--") && !before.contains('='));
        option.is_some_and(|option| !FLAGS.contains(&option.as_str()))
    };
    let mut before = None;
    for option in options {
        if !option.starts_with('-') && !is_value(before) {
            return Some(option);
        }
        before = Some(option);
    }
    None
}

/// The value of a setting, as `--set name=value`; the last one counts.
fn set<'a>(options: &'a [String], name: &str) -> Option<&'a str> {
    let pairs = options.windows(2).filter(|pair| pair[0] == "--set");
    let mut values = pairs.filter_map(|pair| pair[1].strip_prefix(name)?.strip_prefix('='));
    values
        .next_back()
        .map(|value| value.trim().trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needed(options: &[&str]) -> bool {
        is_needed(&options.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn only_named_data_without_a_folder_come_from_the_hub() {
        assert!(!needed(&[]));
        assert!(!needed(&["--data", "photos/idx"]));
        assert!(needed(&["--data", "mnist"]));
        assert!(needed(&["--seed", "1", "--data=fashion-mnist"]));
        assert!(!needed(&["--data", "mnist", "--data-dir", "idx"]));
        assert!(needed(&["mnist"]) && needed(&["--seed", "1", "--force", "fashion-mnist"]));
        assert!(!needed(&["--out", "mnist"]) && !needed(&["photos", "--out", "mnist"]));
        assert!(needed(&["--set", "data=mnist"]));
        assert!(needed(&["--set", "seed=1", "--set", "data=\"mnist\""]));
        assert!(!needed(&["--set", "data=mnist", "--set", "data_dir=idx"]));
    }

    #[test]
    fn settings_of_a_file_count_and_options_override_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.toml");
        std::fs::write(&path, "data = \"mnist\"\n").unwrap();
        let file = path.to_str().unwrap();
        assert!(needed(&["--config", file]));
        assert!(needed(&["--resume", folder.path().to_str().unwrap()]));
        assert!(!needed(&[
            "--config",
            file,
            "--data",
            "fashion-mnist-subset"
        ]));
        assert!(!needed(&["--config", file, "--data-dir", "idx"]));
    }
}
