//! Parquet shards that the library `datasets` reads.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parquet::data_type::{ByteArray, ByteArrayType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::TypePtr;

use crate::error::{Error, Result};
use crate::formats::picture_set::PictureSet;
use crate::packing::target::{prepare, refuse_others, shards, write_whole};

const SCHEMA: &str = "message schema {
    optional group image { optional binary bytes; optional binary path (STRING); }
    optional int64 label;
}";
/// Rows of a row group, as `datasets` writes them for pictures.
const GROUP: usize = 100;

/// Writes `PART-00000-of-0000N.parquet`, ... of at most `shard_size` pictures each into the folder
/// `dir`; returns the files.
///
/// Columns and metadata are those of the library `datasets`: `image` (bytes and path) and `label` with
/// the names of the classes. Bytes stay as they are. [`open`](crate::open) gives the same index, label,
/// bytes and names again.
///
/// # Errors
/// If shards of the part are there, a picture cannot be read, or writing fails.
pub fn write_parquet(
    dir: &Path,
    part: &str,
    set: &PictureSet,
    shard_size: usize,
) -> Result<Vec<PathBuf>> {
    prepare(dir, part)?;
    refuse_others(dir, part, ".parquet")?;
    let ranges = shards(set, shard_size)?;
    let of = ranges.len();
    let schema = parse_message_type(SCHEMA).map_err(|error| fault(dir, &error))?;
    let schema = Arc::new(schema);
    let mut written = Vec::new();
    for (number, range) in ranges.into_iter().enumerate() {
        let path = dir.join(format!("{part}-{number:05}-of-{of:05}.parquet"));
        let shard = Shard {
            path: &path,
            set,
            schema: Arc::clone(&schema),
        };
        write_whole(&path, |out| shard.write(range, out))?;
        written.push(path);
    }
    Ok(written)
}

struct Shard<'a> {
    path: &'a Path,
    set: &'a PictureSet,
    schema: TypePtr,
}

impl Shard<'_> {
    fn write(
        &self,
        range: std::ops::Range<usize>,
        out: &mut (impl std::io::Write + Send),
    ) -> Result<()> {
        let fail = |error: ParquetError| fault(self.path, &error);
        let properties = WriterProperties::builder()
            // Pictures are compressed already, and no two are alike.
            .set_dictionary_enabled(false)
            .set_statistics_enabled(EnabledStatistics::None)
            // Pages of a few pictures: a reader skips the others.
            .set_write_batch_size(4)
            .set_data_page_size_limit(1 << 18)
            .set_key_value_metadata(Some(vec![self.metadata()]))
            .build();
        let mut writer =
            SerializedFileWriter::new(out, Arc::clone(&self.schema), Arc::new(properties))
                .map_err(fail)?;
        for start in range.clone().step_by(GROUP) {
            let rows = start..(start + GROUP).min(range.end);
            let bytes: Vec<Vec<u8>> = rows
                .clone()
                .map(|i| self.set.bytes(i))
                .collect::<Result<_>>()?;
            let group = writer.next_row_group().map_err(fail)?;
            self.group(group, rows, bytes).map_err(fail)?;
        }
        writer.close().map_err(fail)?;
        Ok(())
    }

    fn group<W: std::io::Write + Send>(
        &self,
        mut group: SerializedRowGroupWriter<'_, W>,
        rows: std::ops::Range<usize>,
        bytes: Vec<Vec<u8>>,
    ) -> Result<(), ParquetError> {
        let bytes: Vec<ByteArray> = bytes.into_iter().map(ByteArray::from).collect();
        let paths: Vec<ByteArray> = rows
            .clone()
            .map(|i| ByteArray::from(format!("{i:09}").as_str()))
            .collect();
        for values in [bytes, paths] {
            if let Some(mut column) = group.next_column()? {
                let levels = vec![2; values.len()];
                column
                    .typed::<ByteArrayType>()
                    .write_batch(&values, Some(&levels), None)?;
                column.close()?;
            }
        }
        if let Some(mut column) = group.next_column()? {
            let labels: Vec<i64> = rows.map(|i| i64::from(self.set.label(i))).collect();
            let levels = vec![1; labels.len()];
            column
                .typed::<Int64Type>()
                .write_batch(&labels, Some(&levels), None)?;
            column.close()?;
        }
        group.close()?;
        Ok(())
    }

    /// The features in the words of `datasets`.
    fn metadata(&self) -> KeyValue {
        let info = serde_json::json!({"info": {"features": {
            "image": {"_type": "Image"},
            "label": {"names": self.set.class_names(), "_type": "ClassLabel"},
        }}});
        KeyValue::new("huggingface".into(), info.to_string())
    }
}

fn fault(path: &Path, error: &ParquetError) -> Error {
    Error::Io {
        action: "writing",
        path: path.to_path_buf(),
        source: std::io::Error::other(error.to_string()),
    }
}
