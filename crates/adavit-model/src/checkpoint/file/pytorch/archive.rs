//! The zip archives that `torch.save` writes since PyTorch 1.6.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use zip::{CompressionMethod, ZipArchive};

use super::views::{Wanted, check_size, read_views, wanted};
use crate::checkpoint::file::pickle;
use crate::checkpoint::file::state_dict::StateDict;

pub(crate) fn read_zip(path: &Path) -> Result<StateDict, String> {
    let damaged =
        |error: &dyn std::fmt::Display| format!("not a whole file of torch.save: {error}");
    let file = File::open(path).map_err(|error| format!("cannot be read: {error}"))?;
    let len = file.metadata().map_or(0, |metadata| metadata.len());
    let mut archive = ZipArchive::new(BufReader::new(file)).map_err(|error| damaged(&error))?;
    let names: Vec<String> = archive
        .file_names()
        .filter_map(|name| Some(name.ok()?.into_owned()))
        .collect();
    let folder = state_dict_folder(&names)?;
    let byteorder = entry(&mut archive, &format!("{folder}byteorder"), 16);
    if byteorder.is_ok_and(|order| order.starts_with(b"big")) {
        return Err("written on a big-endian machine, which is not understood".into());
    }
    let pickle = entry(&mut archive, &format!("{folder}data.pkl"), len)?;
    let (pickle, _) = pickle::read(&pickle)?;
    let Wanted { views, mut found } = wanted(&pickle, "torch.save (zip)")?;
    check_size(&views, len)?;
    for (key, views) in views {
        let name = format!("{folder}data/{key}");
        let storage = entry(&mut archive, &name, len).map_err(|error| damaged(&error))?;
        read_views(&storage, &views, &mut found.tensors)?;
    }
    Ok(found)
}

/// The folder of an archive that `torch.save` wrote.
fn state_dict_folder(names: &[String]) -> Result<&str, String> {
    let pickle = names.iter().find(|name| name.ends_with("/data.pkl"));
    let folder = pickle.and_then(|name| name.strip_suffix("data.pkl"));
    let folder = folder.ok_or("a zip archive without data.pkl: expected what torch.save writes")?;
    let code = format!("{folder}code/");
    if names.iter().any(|name| name.starts_with(&code)) {
        return Err(
            "a TorchScript module, not a state dict; in Python, write the state_dict() of the module"
                .into(),
        );
    }
    Ok(folder)
}

/// The bytes of an archive's entry, at most `most`.
fn entry(
    archive: &mut ZipArchive<BufReader<File>>,
    name: &str,
    most: u64,
) -> Result<Vec<u8>, String> {
    let mut file = archive
        .by_name(name)
        .map_err(|error| format!("{name}: {error}"))?;
    if file.compression() != CompressionMethod::Stored {
        return Err(format!("{name}: compressed, which torch.save never does"));
    }
    if file.size() > most {
        return Err(format!(
            "{name}: expected at most {most} bytes, found {}",
            file.size()
        ));
    }
    let mut bytes = Vec::with_capacity(file.size() as usize);
    file.read_to_end(&mut bytes)
        .map_err(|error| format!("{name}: {error}"))?;
    Ok(bytes)
}
