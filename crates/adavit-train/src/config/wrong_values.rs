//! Values that a setting cannot have: serde's message in plain words.

/// serde's names of what it expected, and what a user writes.
const EXPECTED: [(&str, &str); 12] = [
    ("u8", WHOLE),
    ("u32", WHOLE),
    ("u64", WHOLE),
    ("usize", WHOLE),
    ("f64", "a number"),
    ("a boolean", "true or false"),
    ("a string", "a text in quotes"),
    ("string or map", "a text in quotes, or a table of settings"),
    ("a sequence", "a list in brackets"),
    ("a tuple of size 2", "two numbers, as in [32, 32]"),
    ("a map", TABLE),
    ("map", TABLE),
];
const WHOLE: &str = "a whole number, 0 or more";
const TABLE: &str = "a table of settings";

/// Returns the message for a value that does not fit, with the whole name of its setting; none for other
/// errors. `message` is serde's on one line.
pub(super) fn explained(message: &str) -> Option<String> {
    let (message, place) = message.rsplit_once(": in `")?;
    let setting = place.strip_suffix('`')?;
    let (found, expected) = ["invalid type: ", "invalid value: ", "unknown variant "]
        .into_iter()
        .find_map(|start| message.strip_prefix(start))?
        .split_once(", expected ")?;
    let expected = match expected {
        expected if expected.starts_with("struct ") => TABLE,
        expected => EXPECTED
            .iter()
            .find(|(name, _)| *name == expected)
            .map_or(expected, |(_, plain)| plain),
    };
    Some(format!("{setting}: expected {expected}, found {found}"))
}

#[cfg(test)]
mod tests {
    use crate::config::train_config::TrainConfig;

    #[test]
    fn a_value_that_does_not_fit_is_told_in_plain_words() {
        for (text, expected) in [
            (
                "dense.epochs = -3",
                "dense.epochs: expected a whole number, 0 or more, found integer `-3`",
            ),
            (
                "dense.optimizer.lr = 'fast'",
                "dense.optimizer.lr: expected a number, found string \"fast\"",
            ),
            (
                "dense.optimizer = 3",
                "dense.optimizer: expected a table of settings, found integer `3`",
            ),
            (
                "model.img_size = 32",
                "model.img_size: expected two numbers, as in [32, 32], found integer `32`",
            ),
            (
                "usage.macs_deviation = 'cubed'",
                "usage.macs_deviation: expected `absolute` or `squared`, found `cubed`",
            ),
            (
                "decisions.ada_head = 'half'",
                "decisions.ada_head: expected \"off\", \"full\", \"partial\" or \"head_v2\", found string \"half\"",
            ),
        ] {
            let error = TrainConfig::from_toml(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
