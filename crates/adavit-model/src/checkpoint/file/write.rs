//! Writing files so that at any moment either the old or the whole new one is there.

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;

use candle_core::Tensor;
use tempfile::NamedTempFile;

use crate::checkpoint::tensors::Tensors;
use crate::error::{Error, Result};

/// Writes tensors as a safetensors file, as [`write_file`] does; the same tensors give the same
/// bytes.
///
/// # Errors
/// If the file cannot be written.
pub fn write_tensors(path: &Path, tensors: &Tensors) -> Result<()> {
    // One entry: several would be written in random order.
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    let views: Vec<(&str, &Tensor)> = tensors.iter().map(|(n, t)| (n.as_str(), t)).collect();
    replace(path, |file| {
        // One tensor at a time, so that memory does not hold the whole file.
        let written = safetensors::serialize_to_file(views, Some(metadata), file.path());
        written.map_err(std::io::Error::other)
    })
}

/// Writes a file under a temporary name, flushes it to the disk and renames it, so that at any
/// moment either the old or the whole new file is there.
///
/// # Errors
/// If the file cannot be written.
pub fn write_file(path: &Path, bytes: &[u8]) -> Result<()> {
    replace(path, |file| file.write_all(bytes))
}

/// Replaces a file by what `write` makes of a temporary one.
fn replace(
    path: &Path,
    write: impl FnOnce(&mut NamedTempFile) -> std::io::Result<()>,
) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let replace = || {
        let mut builder = tempfile::Builder::new();
        builder.prefix(".adavit-");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            // What an ordinary write gives, less the umask; the default is for secrets.
            builder.permissions(std::fs::Permissions::from_mode(0o666));
        }
        let mut file = builder.tempfile_in(folder)?;
        write(&mut file)?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|error| error.error)?;
        Ok(())
    };
    replace().map_err(Error::io("writing", path))
}
