//! Some rows of one column of a parquet file.

use std::fs::File;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use parquet::column::reader::ColumnReaderImpl;
use parquet::data_type::DataType;
use parquet::errors::ParquetError;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::serialized_reader::SerializedPageReader;

use crate::error::{Error, Result};

/// Runs the reader: a damaged file is an error, also where the reader panics.
pub(crate) fn guarded<T>(path: &Path, read: impl FnOnce() -> Result<T, ParquetError>) -> Result<T> {
    let fail =
        |message: String| Error::data(path, format!("{message}; copy or download the file again"));
    catch_unwind(AssertUnwindSafe(read))
        .map_err(|_| fail("the parquet file is damaged".into()))?
        .map_err(|error| fail(format!("not a whole parquet file: {error}")))
}

/// Some rows of a column of a row group.
pub(crate) struct ColumnPart {
    pub(crate) group: usize,
    pub(crate) column: usize,
    pub(crate) first: usize,
    pub(crate) rows: usize,
}

impl ColumnPart {
    pub(crate) fn read<T: DataType>(
        &self,
        path: &Path,
        metadata: &ParquetMetaData,
    ) -> Result<Vec<Option<T::T>>, ParquetError> {
        let file = Arc::new(File::open(path)?);
        let group = metadata.row_group(self.group);
        let column = group.column(self.column);
        let descr = column.column_descr_ptr();
        let most = descr.max_def_level();
        let rows = usize::try_from(group.num_rows())?;
        let pages = SerializedPageReader::new(file, column, rows, None)?;
        let mut reader = ColumnReaderImpl::<T>::new(descr, Box::new(pages));
        reader.skip_records(self.first)?;
        let (mut levels, mut values) = (Vec::new(), Vec::new());
        while levels.len().max(if most == 0 { values.len() } else { 0 }) < self.rows {
            let found = if most == 0 {
                values.len()
            } else {
                levels.len()
            };
            let (read, _, _) =
                reader.read_records(self.rows - found, Some(&mut levels), None, &mut values)?;
            if read == 0 {
                return Err(ParquetError::EOF(format!(
                    "expected {} rows, found {found}",
                    self.rows
                )));
            }
        }
        if most == 0 {
            return Ok(values.into_iter().map(Some).collect());
        }
        let mut values = values.into_iter();
        let value = |level: i16| if level == most { values.next() } else { None };
        Ok(levels.into_iter().map(value).collect())
    }
}
