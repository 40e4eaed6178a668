//! Writing files so that at any moment either the old or the whole new one is there.

use std::collections::HashMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use tempfile::NamedTempFile;

use crate::checkpoint::tensors::Tensors;
use crate::error::{Error, Result};

/// Files of checkpoints and runs, which no other output replaces.
const KEPT: [&str; 8] = [
    "model.safetensors",
    "config.json",
    "config.toml",
    "metrics.csv",
    "summary.json",
    "run.json",
    "state.json",
    "state.safetensors",
];

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

/// Checks that [`write_file`] can write a file, before the work whose result it is to hold.
///
/// # Errors
/// [`Error::Unwritable`] if the path is a folder, its folder is missing or cannot be written, or a
/// file of a checkpoint or a run would be replaced.
pub fn check_writable(path: &Path) -> Result<()> {
    let refused = |message: String| {
        Err(Error::Unwritable {
            path: path.to_path_buf(),
            message,
        })
    };
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    if path.is_dir() {
        return refused("expected the path of a file, found a folder".into());
    }
    if path.exists() && KEPT.contains(&name.as_ref()) {
        return refused(format!(
            "a {name} is here already, which belongs to a checkpoint or a run; choose another file"
        ));
    }
    if is_special(path) {
        return Ok(());
    }
    match temporary(&target(path)) {
        Ok(_) => Ok(()),
        Err(error) => refused(format!("cannot be written ({error}); choose another file")),
    }
}

/// Whether a path is a pipe or a device, which is written to and not replaced.
fn is_special(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|kind| !kind.is_file() && !kind.is_dir())
}

/// The file that a path names: a link stays, and what it leads to is replaced.
fn target(path: &Path) -> PathBuf {
    let is_link = std::fs::symlink_metadata(path).is_ok_and(|kind| kind.is_symlink());
    let led_to = is_link.then(|| path.canonicalize().ok()).flatten();
    led_to.unwrap_or_else(|| path.to_path_buf())
}

/// Replaces a file by what `write` makes of a temporary one.
fn replace(
    path: &Path,
    write: impl FnOnce(&mut NamedTempFile) -> std::io::Result<()>,
) -> Result<()> {
    let replace = || {
        if is_special(path) {
            let mut file = NamedTempFile::new()?;
            write(&mut file)?;
            let mut written = std::fs::OpenOptions::new().write(true).open(path)?;
            std::io::copy(&mut file.reopen()?, &mut written)?;
            return Ok(());
        }
        let target = target(path);
        let mut file = temporary(&target)?;
        write(&mut file)?;
        file.as_file().sync_all()?;
        file.persist(&target).map_err(|error| error.error)?;
        Ok(())
    };
    replace().map_err(Error::io("writing", path))
}

/// A temporary file next to `path`.
fn temporary(path: &Path) -> std::io::Result<NamedTempFile> {
    let folder = path.parent().filter(|parent| *parent != Path::new(""));
    let mut builder = tempfile::Builder::new();
    builder.prefix(".adavit-");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // What an ordinary write gives, less the umask; the default is for secrets.
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    builder.tempfile_in(folder.unwrap_or(Path::new(".")))
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    #[test]
    fn a_link_stays_and_its_target_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        write_file(&file, b"old").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        write_file(&link, b"new").unwrap();
        let kind = std::fs::symlink_metadata(&link).unwrap();
        assert!(kind.is_symlink());
        assert_eq!(std::fs::read(&file).unwrap(), b"new");
    }

    #[test]
    fn a_device_is_written_to_and_not_replaced() {
        // Through a link, so that a mistake could not hurt the device itself.
        let folder = tempfile::tempdir().unwrap();
        for (device, fits) in [("null", true), ("full", false)] {
            let device = Path::new("/dev").join(device);
            if !device.exists() {
                continue;
            }
            let link = folder.path().join(device.file_name().unwrap());
            std::os::unix::fs::symlink(&device, &link).unwrap();
            assert!(check_writable(&link).is_ok());
            assert_eq!(write_file(&link, b"bytes").is_ok(), fits, "{device:?}");
            assert!(!std::fs::metadata(&link).unwrap().is_file());
        }
    }
}
