//! Lists of pictures with their labels: CSV with a header, or JSON lines.
//!
//! ```text
//! path,label,split           {"path": "a/1.jpg", "label": "cat", "split": "train"}
//! a/1.jpg,cat,train          {"path": "a/2.jpg", "label": 3}
//! ```

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use rayon::prelude::*;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::formats::disk::Files;
use crate::formats::left_out::{LeftOut, Reason};
use crate::formats::options::{Faulty, OpenOptions};
use crate::formats::part_name::PartName;
use crate::formats::store::{Labels, Listed, RawPart, read_text};

const PATHS: [&str; 6] = [
    "path",
    "file",
    "filename",
    "file_name",
    "image",
    "image_path",
];
const LABELS: [&str; 3] = ["label", "class", "target"];
const SPLITS: [&str; 3] = ["split", "part", "subset"];

/// One line of a list.
#[derive(Debug)]
struct Row {
    /// Counted from 1, the header included.
    number: usize,
    path: String,
    label: String,
    part: Option<PartName>,
}

/// A line that is wrong, or what it says.
type ReadRow = Result<Row, (usize, Reason, String)>;

/// Reads a list; its paths are relative to its folder.
///
/// # Errors
/// If a column is missing, or a row is wrong and `options` refuses it.
pub(crate) fn open(file: &Path, options: &OpenOptions) -> Result<Listed> {
    let text = read_text(file)?;
    let is_csv = file
        .extension()
        .is_some_and(|ending| ending.eq_ignore_ascii_case("csv"));
    let rows = if is_csv {
        csv_rows(&text)
    } else {
        Ok(json_rows(&text))
    };
    let rows = rows.map_err(|message| Error::data(file, message))?;
    let folder = file.parent().unwrap_or(Path::new(""));
    let rows = rows.into_par_iter().map(|row| existing(folder, row?));
    let rows: Vec<ReadRow> = rows.collect();
    let mut left_out = LeftOut::default();
    let mut parts: BTreeMap<Option<PartName>, Vec<Row>> = BTreeMap::new();
    for row in rows {
        match (row, options.faulty) {
            (Ok(row), _) => parts.entry(row.part).or_default().push(row),
            (Err((row, reason, message)), Faulty::LeaveOut) => {
                left_out.add(reason, &format!("row {row}: {message}"));
            }
            (Err((row, _, message)), Faulty::Refuse) => {
                return Err(Error::data(file, format!("row {row}: {message}")));
            }
        }
    }
    if parts.len() > 1 && parts.contains_key(&None) {
        return Err(Error::data(
            file,
            "some rows have a split and some have none; give all rows one, or none",
        ));
    }
    if parts.is_empty() {
        return Err(Error::data(
            file,
            "expected at least one picture with a label, found none",
        ));
    }
    Ok(Listed {
        format: "list of pictures",
        carrier: "labels",
        parts: parts
            .into_iter()
            .map(|(name, rows)| part(folder, name, rows))
            .collect(),
        class_names: Vec::new(),
        left_out,
    })
}

fn part(folder: &Path, part: Option<PartName>, mut rows: Vec<Row>) -> RawPart {
    rows.sort_by(|a, b| a.path.cmp(&b.path));
    let mut labels = Labels::default();
    let class_of = rows.iter().map(|row| labels.place(&row.label)).collect();
    RawPart {
        part,
        classes: labels.classes,
        class_of,
        empty_classes: Vec::new(),
        by_path: true,
        store: Box::new(Files {
            root: folder.to_path_buf(),
            paths: rows.iter().map(|row| row.path.as_str()).collect(),
        }),
    }
}

/// Checks that the file of a row is there.
fn existing(folder: &Path, row: Row) -> ReadRow {
    let path = folder.join(&row.path);
    match fs::metadata(&path) {
        Ok(data) if data.is_file() && data.len() > 0 => Ok(row),
        Ok(data) if data.is_file() => {
            Err((row.number, Reason::Empty, format!("{} is empty", row.path)))
        }
        Ok(_) => Err((
            row.number,
            Reason::Unreadable,
            format!("{} is no file", row.path),
        )),
        Err(error) => Err((
            row.number,
            Reason::Missing,
            format!(
                "{} cannot be read: {error}; paths are relative to the list's folder",
                row.path
            ),
        )),
    }
}

fn csv_rows(text: &str) -> Result<Vec<ReadRow>, String> {
    let mut reader = csv::ReaderBuilder::new();
    let mut reader = reader.trim(csv::Trim::All).from_reader(text.as_bytes());
    let header = reader.headers().map_err(|error| error.to_string())?.clone();
    let column = |names: &[&str]| {
        let is_one = |found: &str| names.iter().any(|name| name.eq_ignore_ascii_case(found));
        header.iter().position(is_one)
    };
    let (Some(path), Some(label)) = (column(&PATHS), column(&LABELS)) else {
        return Err(format!(
            "expected a header with a path ({}) and a label ({}), found the columns {}",
            PATHS.join(", "),
            LABELS.join(", "),
            header.iter().collect::<Vec<_>>().join(", ")
        ));
    };
    for place in [path, label] {
        if let Some(name) = header.get(place)
            && header.iter().filter(|other| *other == name).count() > 1
        {
            return Err(format!("two columns are called {name:?}; rename one"));
        }
    }
    let split = column(&SPLITS);
    let rows = (2..).zip(reader.records()).map(|(row, record)| {
        let record = record.map_err(|error| (row, Reason::NoLabel, wrong_row(&error)))?;
        let fields = Fields {
            path: record.get(path),
            label: record.get(label),
            split: split.map(|split| record.get(split).unwrap_or_default()),
        };
        fields.row(row)
    });
    Ok(rows.collect())
}

/// What is wrong with a row of a CSV file.
fn wrong_row(error: &csv::Error) -> String {
    match error.kind() {
        csv::ErrorKind::UnequalLengths {
            expected_len, len, ..
        } => format!(
            "expected {expected_len} fields, found {len}; put a field with a comma in quotes"
        ),
        _ => error.to_string(),
    }
}

fn json_rows(text: &str) -> Vec<ReadRow> {
    let lines = (1..)
        .zip(text.lines())
        .filter(|(_, line)| !line.trim().is_empty());
    lines.map(|(row, line)| json_row(row, line)).collect()
}

fn json_row(row: usize, line: &str) -> ReadRow {
    let fail = |message: String| (row, Reason::NoLabel, message);
    let value: Value = serde_json::from_str(line)
        .map_err(|error| fail(format!("expected a JSON object: {error}")))?;
    let field = |names: &[&str]| names.iter().find_map(|name| value.get(name));
    let text = |value: &Value| match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    };
    let path = field(&PATHS).and_then(Value::as_str);
    let label = field(&LABELS).and_then(text);
    let split = field(&SPLITS).map(|split| split.as_str().unwrap_or_default());
    let fields = Fields {
        path,
        label: label.as_deref(),
        split,
    };
    fields.row(row)
}

/// What a line says.
struct Fields<'a> {
    path: Option<&'a str>,
    label: Option<&'a str>,
    split: Option<&'a str>,
}

impl Fields<'_> {
    fn row(&self, row: usize) -> ReadRow {
        let fail = |message: String| Err((row, Reason::NoLabel, message));
        let Some(path) = self.path.filter(|path| !path.is_empty()) else {
            return fail(format!("expected a path ({})", PATHS.join(", ")));
        };
        let Some(label) = self.label.map(str::trim).filter(|label| !label.is_empty()) else {
            return fail(format!(
                "{path} has no label: expected a name or a number ({})",
                LABELS.join(", ")
            ));
        };
        if label.contains(['\n', '\r']) {
            return fail(format!(
                "the label of {path} has a line break; is a quote not closed?"
            ));
        }
        let part = self.split.map(PartName::of);
        if part == Some(None) {
            return fail(format!(
                "{path}: expected the split train, val or test, found {:?}",
                self.split.unwrap_or_default()
            ));
        }
        Ok(Row {
            number: row,
            path: path.to_owned(),
            label: label.to_owned(),
            part: part.flatten(),
        })
    }
}
