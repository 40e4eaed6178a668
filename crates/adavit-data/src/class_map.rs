//! Class maps: files that give each folder or label its class.

use std::collections::BTreeMap;
use std::path::Path;

use crate::error::{Error, Result};
use crate::formats::store::read_text;

/// What a class map leads to.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(untagged)]
pub(crate) enum Class {
    Number(u32),
    Name(String),
}

/// Reads a class map: CSV, or a JSON object.
pub(crate) fn class_map(file: &Path) -> Result<BTreeMap<String, Class>> {
    let text = read_text(file)?;
    let is_json = text.trim_start().starts_with('{');
    let map = if is_json {
        json_map(&text)
    } else {
        csv_map(&text)
    };
    let map = map.map_err(|message| {
        Error::data(
            file,
            format!("expected a JSON object or CSV lines of folder,class, {message}"),
        )
    })?;
    if map.is_empty() {
        return Err(Error::data(
            file,
            "expected lines of folder,class, found none",
        ));
    }
    Ok(map)
}

fn json_map(text: &str) -> Result<BTreeMap<String, Class>, String> {
    serde_json::from_str(text).map_err(|error| format!("found an error: {error}"))
}

fn csv_map(text: &str) -> Result<BTreeMap<String, Class>, String> {
    let mut map = BTreeMap::new();
    let mut reader = csv::ReaderBuilder::new();
    let mut reader = reader
        .has_headers(false)
        .trim(csv::Trim::All)
        .from_reader(text.as_bytes());
    for (line, row) in (1..).zip(reader.records()) {
        let row = row.map_err(|error| format!("found an error: {error}"))?;
        let [Some(folder), Some(class), None] = [row.get(0), row.get(1), row.get(2)] else {
            return Err(format!("found {} columns in row {line}", row.len()));
        };
        let is_header = ["folder", "name", "label"].contains(&folder)
            && ["class", "number", "index", "name", "label"].contains(&class);
        if line == 1 && is_header {
            continue;
        }
        let class = number(class).map_or_else(|| Class::Name(class.to_owned()), Class::Number);
        if map.insert(folder.to_owned(), class).is_some() {
            return Err(format!("found {folder:?} twice (row {line})"));
        }
    }
    Ok(map)
}

/// The number that a name is: digits only, or with zeros behind a point, as programs write whole numbers
/// of a column of floats.
pub(crate) fn number(name: &str) -> Option<u32> {
    let (whole, fraction) = name.split_once('.').unwrap_or((name, "0"));
    let digits = !whole.is_empty() && whole.bytes().all(|byte| byte.is_ascii_digit());
    let zeros = !fraction.is_empty() && fraction.bytes().all(|byte| byte == b'0');
    (digits && zeros).then(|| whole.parse().ok()).flatten()
}

/// Whether a name is a negative number.
pub(crate) fn is_negative(name: &str) -> bool {
    let rest = name.strip_prefix('-');
    rest.is_some_and(|rest| number(rest).is_some())
}
