//! Names of shards that say how many there are: `train-00000-of-00003.parquet`.

use std::collections::BTreeMap;
use std::path::PathBuf;

/// Returns the files that a set of shards lacks, as `train: 1 of 3`.
pub(crate) fn missing(files: &[PathBuf]) -> Option<String> {
    let mut sets: BTreeMap<(String, usize), Vec<usize>> = BTreeMap::default();
    for path in files {
        let stem = path
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let Some((stem, of)) = stem.rsplit_once("-of-") else {
            continue;
        };
        // `-of-00003-0123abcd` is what the hub wrote once.
        let of = of.split('-').next().unwrap_or_default();
        let Some((name, shard)) = stem.rsplit_once('-') else {
            continue;
        };
        if let (Ok(shard), Ok(of)) = (shard.parse(), of.parse()) {
            sets.entry((name.to_owned(), of)).or_default().push(shard);
        }
    }
    sets.iter().find_map(|((name, of), found)| {
        let first = (0..*of).find(|shard| !found.contains(shard))?;
        Some(format!(
            "{name}: shard {first} of 0 to {} is missing",
            of - 1
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_shard_is_named() {
        let files = |names: &[&str]| -> Vec<PathBuf> { names.iter().map(PathBuf::from).collect() };
        let found = missing(&files(&[
            "d/train-00000-of-00003.parquet",
            "d/train-00002-of-00003-ab12.parquet",
        ]));
        assert_eq!(found.unwrap(), "train: shard 1 of 0 to 2 is missing");
        assert_eq!(
            missing(&files(&["a.parquet", "test-00000-of-00001.parquet"])),
            None
        );
    }
}
