//! Keys that are no settings: what was probably meant.

use toml::{Table, Value};

/// How many settings are suggested.
const MOST: usize = 3;

/// Returns the message for an unknown key, with its whole name and the nearest known ones; none for
/// other errors. `message` is serde's on one line, `known` holds settings with values.
pub(super) fn explained(message: &str, known: &Table) -> Option<String> {
    let (_, rest) = message.split_once("unknown field `")?;
    let (key, rest) = rest.split_once('`')?;
    let (expected, place) = rest.rsplit_once("in `").unwrap_or((rest, ""));
    let table = place.split('`').next().unwrap_or_default();
    let full = |key: &str| match table {
        "" => key.to_string(),
        table => format!("{table}.{key}"),
    };
    // serde names the keys of this table, those without a value too.
    let here: Vec<String> = expected.split('`').skip(1).step_by(2).map(full).collect();
    let mut elsewhere = Vec::new();
    flatten(known, "", &mut elsewhere);
    let mut near: Vec<(usize, &String)> = here
        .iter()
        .chain(elsewhere.iter().filter(|name| !here.contains(name)))
        .map(|name| (distance(key, last(name)), name))
        .filter(|(distance, name)| *distance <= key.len().max(last(name).len()) / 3)
        .collect();
    // Stable: of equally near ones those of this table first.
    near.sort_by_key(|(distance, _)| *distance);
    let full = full(key);
    if near.is_empty() {
        let here = here.join(", ");
        return Some(format!("{full}: no such setting; expected one of {here}"));
    }
    let near = near.iter().take(MOST).map(|(_, name)| name.as_str());
    let near: Vec<&str> = near.collect();
    Some(format!(
        "{full}: no such setting; did you mean {}?",
        near.join(" or ")
    ))
}

/// The dotted names of all values.
fn flatten(table: &Table, prefix: &str, names: &mut Vec<String>) {
    for (key, value) in table {
        match value {
            Value::Table(table) => flatten(table, &format!("{prefix}{key}."), names),
            _ => names.push(format!("{prefix}{key}")),
        }
    }
}

fn last(name: &str) -> &str {
    name.rsplit('.').next().unwrap_or(name)
}

/// The number of characters to insert, delete or replace between two names (Levenshtein, 1966).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut above_left = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let above = row[j + 1];
            row[j + 1] = (above_left + usize::from(x != *y)).min(above.min(row[j]) + 1);
            above_left = above;
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::train_config::TrainConfig;

    fn error(text: &str) -> String {
        TrainConfig::from_toml(text).unwrap_err().to_string()
    }

    #[test]
    fn the_nearest_settings_are_named_with_their_tables() {
        let found = error("dense.optimizer.lrr = 1e-3");
        let expected = "dense.optimizer.lrr: no such setting; did you mean dense.optimizer.lr";
        assert!(found.starts_with(expected), "{found}");
        // A setting without a value, and one of another table.
        assert!(error("thread = 2").contains("threads"));
        let found = error("lr = 1e-3");
        assert!(found.contains("dense.optimizer.lr"), "{found}");
        let found = error("[dense]\nfrobnicate = 1");
        assert!(found.contains("expected one of dense.epochs"), "{found}");
    }

    #[test]
    fn a_distance_counts_edits() {
        for (a, b, edits) in [
            ("lr", "lr", 0),
            ("budgte", "budget", 2),
            ("", "abc", 3),
            ("seed", "speed", 1),
        ] {
            assert_eq!(distance(a, b), edits, "{a} {b}");
        }
    }
}
