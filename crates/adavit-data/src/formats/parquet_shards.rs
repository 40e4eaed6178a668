//! Pictures in parquet files, as data sets on the Hugging Face hub have them.
//!
//! ```text
//! image: struct<bytes: binary, path: string>    label: int64
//! metadata `huggingface`: {"info": {"features": {"label": {"names": ["cat", "dog"], ...}}}}
//! ```
//!
//! A picture is read by its row: pages in front of it are skipped unread, and a block of about a
//! megabyte of pictures is decoded and kept for a while. No file is ever whole in memory.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::basic::Type;
use parquet::data_type::{ByteArray, ByteArrayType, Int32Type, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::formats::blocks::{Block, BlockKey, Blocks};
use crate::formats::left_out::{LeftOut, Reason};
use crate::formats::options::{Faulty, OpenOptions};
use crate::formats::parquet_columns::{ColumnPart, guarded};
use crate::formats::part_name::PartName;
use crate::formats::store::{Labels, Listed, MOST_FILE_BYTES, RawPart, Store};
use crate::loader::streamed::Spot;

/// Columns of pictures and of labels; the first one that a file has counts.
const PICTURES: [&str; 8] = [
    "image.bytes",
    "img.bytes",
    "picture.bytes",
    "jpg.bytes",
    "image",
    "img",
    "image_bytes",
    "bytes",
];
const LABELS: [&str; 6] = [
    "label",
    "labels",
    "fine_label",
    "class",
    "target",
    "coarse_label",
];
/// About how many bytes of pictures are decoded together.
const BLOCK_BYTES: u64 = 1 << 20;

/// One file.
#[derive(Debug)]
struct Shard {
    path: PathBuf,
    metadata: Arc<ParquetMetaData>,
    /// The column of pictures.
    column: usize,
    /// The first row of each row group, and the number of all rows.
    starts: Vec<usize>,
}

/// Pictures by their row.
#[derive(Debug)]
struct Rows {
    shards: Vec<Arc<Shard>>,
    /// The shard and the row of each entry.
    entries: Vec<(u32, u32)>,
    blocks: Blocks,
}

impl Store for Rows {
    fn bytes(&self, entry: usize) -> Result<Vec<u8>> {
        let (shard, row) = self.entries[entry];
        let file = &self.shards[shard as usize];
        let place = file.find(row as usize);
        let key = BlockKey {
            shard,
            group: place.group as u32,
            first: place.first as u32,
        };
        let block = self.blocks.get(key, || file.read(&place))?;
        let bytes = block
            .get(place.row - place.first)
            .filter(|bytes| !bytes.is_empty());
        bytes.cloned().ok_or_else(|| {
            Error::data(
                &file.path,
                format!("row {row} holds no bytes of a picture; remove the row"),
            )
        })
    }

    fn place(&self, entry: usize) -> String {
        let (shard, row) = self.entries[entry];
        format!("{}: row {row}", self.shards[shard as usize].path.display())
    }

    fn spot(&self, entry: usize) -> Option<Spot> {
        let (shard, row) = self.entries[entry];
        Some(Spot {
            shard,
            offset: row.into(),
            bytes: self.shards[shard as usize].mean_bytes(row as usize),
        })
    }
}

/// Where a row is.
struct Place {
    group: usize,
    /// In the group.
    row: usize,
    /// The block of rows around it, in the group.
    first: usize,
    rows: usize,
}

impl Shard {
    fn group_of(&self, row: usize) -> usize {
        self.starts.partition_point(|start| *start <= row) - 1
    }

    /// The mean size of the pictures in the row group of a row, at least 1.
    fn mean_bytes(&self, row: usize) -> u64 {
        let group = self.group_of(row);
        let rows = self.starts[group + 1] - self.starts[group];
        let column = self.metadata.row_group(group).column(self.column);
        (column.uncompressed_size().max(0) as u64 / rows as u64).max(1)
    }

    fn find(&self, row: usize) -> Place {
        let group = self.group_of(row);
        let rows = self.starts[group + 1] - self.starts[group];
        let block = ((BLOCK_BYTES / self.mean_bytes(row)).max(1) as usize).min(rows);
        let row = row - self.starts[group];
        let first = row / block * block;
        Place {
            group,
            row,
            first,
            rows: block.min(rows - first),
        }
    }

    fn read(&self, place: &Place) -> Result<Block> {
        let part = ColumnPart {
            group: place.group,
            column: self.column,
            first: place.first,
            rows: place.rows,
        };
        let values = self.guarded(|| part.read::<ByteArrayType>(&self.path, &self.metadata))?;
        let bytes =
            |value: Option<ByteArray>| value.map_or_else(Vec::new, |value| value.data().to_vec());
        let block: Block = values.into_iter().map(bytes).collect();
        let too_large = |bytes: &Vec<u8>| bytes.len() as u64 > MOST_FILE_BYTES;
        if block.iter().any(too_large) {
            return Err(Error::data(
                &self.path,
                "a picture is larger than a gigabyte",
            ));
        }
        Ok(block)
    }

    /// The labels of all rows as text, `None` where there is none.
    fn labels(&self, column: usize) -> Result<Vec<Option<String>>> {
        let kind = self
            .metadata
            .file_metadata()
            .schema_descr()
            .column(column)
            .physical_type();
        let mut labels = Vec::new();
        for group in 0..self.metadata.num_row_groups() {
            let part = ColumnPart {
                group,
                column,
                first: 0,
                rows: self.starts[group + 1] - self.starts[group],
            };
            let found: Vec<Option<String>> = match kind {
                Type::INT32 => {
                    texts(self.guarded(|| part.read::<Int32Type>(&self.path, &self.metadata))?)
                }
                Type::INT64 => {
                    texts(self.guarded(|| part.read::<Int64Type>(&self.path, &self.metadata))?)
                }
                _ => {
                    let values =
                        self.guarded(|| part.read::<ByteArrayType>(&self.path, &self.metadata))?;
                    let text = |value: ByteArray| String::from_utf8(value.data().to_vec()).ok();
                    values
                        .into_iter()
                        .map(|value| value.and_then(text))
                        .collect()
                }
            };
            labels.extend(found);
        }
        Ok(labels)
    }

    /// Damaged files are errors, also where the reader panics.
    fn guarded<T>(&self, read: impl FnOnce() -> Result<T, ParquetError>) -> Result<T> {
        guarded(&self.path, read)
    }
}

fn texts<T: ToString>(values: Vec<Option<T>>) -> Vec<Option<String>> {
    let text = |value: Option<T>| value.map(|value| value.to_string());
    values.into_iter().map(text).collect()
}

/// Opens the files of one data set.
///
/// # Errors
/// If a file is damaged, has other columns, or a row has no label and `options` refuses it.
pub(crate) fn open(root: &Path, files: &[PathBuf], options: &OpenOptions) -> Result<Listed> {
    let read: Vec<Result<Opened>> = files.par_iter().map(|path| open_shard(path)).collect();
    let mut left_out = LeftOut::default();
    let mut class_names: Vec<String> = Vec::new();
    let mut parts: BTreeMap<Option<PartName>, PartRows> = BTreeMap::new();
    for opened in read {
        let opened = opened?;
        let path = &opened.shard.path;
        if class_names.is_empty() {
            class_names.clone_from(&opened.names);
        }
        if !opened.names.is_empty() && opened.names != class_names {
            let message = "its classes differ from those of the files before it";
            return Err(Error::data(path, message));
        }
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let part = parts.entry(PartName::of_file(&name)).or_default();
        for row in part.add(&opened.labels) {
            if options.faulty == Faulty::Refuse {
                let message = format!("row {row} has no label; remove the row");
                return Err(Error::data(path, message));
            }
            left_out.add(Reason::NoLabel, &format!("{}: row {row}", path.display()));
        }
        part.shards.push(Arc::new(opened.shard));
    }
    if parts.len() > 1 && parts.contains_key(&None) {
        return Err(Error::data(
            root,
            "some files are called train, val or test, and some are not; open them separately",
        ));
    }
    let parts: Vec<RawPart> = parts
        .into_iter()
        .filter(|(_, part)| !part.entries.is_empty())
        .map(|(name, part)| part.raw(name))
        .collect();
    if parts.is_empty() {
        return Err(Error::data(
            root,
            "expected at least one picture with a label, found none",
        ));
    }
    Ok(Listed {
        format: "parquet shards",
        carrier: "labels",
        parts,
        class_names,
        left_out,
    })
}

/// The rows of a part.
#[derive(Debug, Default)]
struct PartRows {
    shards: Vec<Arc<Shard>>,
    labels: Labels,
    class_of: Vec<u32>,
    entries: Vec<(u32, u32)>,
}

impl PartRows {
    /// Adds the rows of the next shard; returns those without a label.
    fn add(&mut self, labels: &[Option<String>]) -> Vec<usize> {
        let shard = self.shards.len() as u32;
        let mut without = Vec::new();
        for (row, label) in labels.iter().enumerate() {
            if let Some(label) = label {
                self.class_of.push(self.labels.place(label));
                self.entries.push((shard, row as u32));
            } else {
                without.push(row);
            }
        }
        without
    }

    fn raw(self, part: Option<PartName>) -> RawPart {
        RawPart {
            part,
            classes: self.labels.classes,
            class_of: self.class_of,
            empty_classes: Vec::new(),
            by_path: false,
            store: Box::new(Rows {
                shards: self.shards,
                entries: self.entries,
                blocks: Blocks::default(),
            }),
        }
    }
}

/// A file with its labels, and the names of its classes.
struct Opened {
    shard: Shard,
    labels: Vec<Option<String>>,
    names: Vec<String>,
}

fn open_shard(path: &Path) -> Result<Opened> {
    let metadata = guarded(path, || {
        let file = File::open(path)?;
        ParquetMetaDataReader::new().parse_and_finish(&file)
    })?;
    let columns = Columns::find(path, &metadata)?;
    let starts = starts(path, &metadata)?;
    let names = class_names(&metadata, &columns.label_name);
    let shard = Shard {
        path: path.to_path_buf(),
        metadata: Arc::new(metadata),
        column: columns.picture,
        starts,
    };
    let labels = shard.labels(columns.label)?;
    Ok(Opened {
        shard,
        labels,
        names,
    })
}

/// The columns that are read.
struct Columns {
    picture: usize,
    label: usize,
    label_name: String,
}

impl Columns {
    fn find(path: &Path, metadata: &ParquetMetaData) -> Result<Self> {
        let schema = metadata.file_metadata().schema_descr();
        let names: Vec<String> = schema
            .columns()
            .iter()
            .map(|column| column.path().string())
            .collect();
        let find = |wanted: &[&str], kinds: &[Type]| {
            let is_one = |name: &str, at: usize| {
                let column = schema.column(at);
                names[at] == name
                    && column.max_rep_level() == 0
                    && kinds.contains(&column.physical_type())
            };
            let place = |name: &&str| (0..names.len()).find(|at| is_one(name, *at));
            wanted.iter().find_map(place)
        };
        let picture = find(&PICTURES, &[Type::BYTE_ARRAY]);
        let label = find(&LABELS, &[Type::INT32, Type::INT64, Type::BYTE_ARRAY]);
        let (Some(picture), Some(label)) = (picture, label) else {
            let message = format!(
                "expected the columns image (struct of bytes and path) and label (integer), found {}",
                names.join(", ")
            );
            return Err(Error::data(path, message));
        };
        let mut groups = metadata.row_groups().iter();
        if groups.any(|group| group.num_columns() != names.len()) {
            let message = "row groups differ in their columns; the file is damaged";
            return Err(Error::data(path, message));
        }
        Ok(Self {
            picture,
            label,
            label_name: names[label].clone(),
        })
    }
}

/// The first row of each row group, and the number of all rows.
fn starts(path: &Path, metadata: &ParquetMetaData) -> Result<Vec<usize>> {
    let mut starts = vec![0];
    let mut all = 0;
    for group in metadata.row_groups() {
        let rows = group.num_rows();
        let fault = |_| format!("a row group claims {rows} rows; the file is damaged");
        let rows = u32::try_from(rows).map_err(|error| Error::data(path, fault(error)))?;
        all += rows as usize;
        starts.push(all);
    }
    Ok(starts)
}

/// The names of `ClassLabel` in the metadata that the library `datasets` writes.
fn class_names(metadata: &ParquetMetaData, column: &str) -> Vec<String> {
    let pairs = metadata.file_metadata().key_value_metadata();
    let mut pairs = pairs.into_iter().flatten();
    let text = pairs
        .find(|pair| pair.key == "huggingface")
        .and_then(|pair| pair.value.as_deref());
    let value: Option<serde_json::Value> = text.and_then(|text| serde_json::from_str(text).ok());
    let names = value.as_ref().and_then(|value| {
        value
            .get("info")?
            .get("features")?
            .get(column)?
            .get("names")?
            .as_array()
    });
    let name = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    names.map_or_else(Vec::new, |names| names.iter().map(name).collect())
}
