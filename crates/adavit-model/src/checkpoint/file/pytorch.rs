//! Files of `torch.save`: the zip archives since PyTorch 1.6, and the pickles one after the other of
//! before.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use candle_core::DType;
use zip::{CompressionMethod, ZipArchive};

use super::pickle::{self, Id, Node, Pickle, TensorNode};
use super::{StateDict, checked_elements, tensor_of};
use crate::checkpoint::tensors::Tensors;

/// Where training code puts weights, the better ones first: as timm and the published AdaViT code
/// look for them.
const WRAPPERS: [&str; 3] = ["state_dict_ema", "state_dict", "model"];

/// The first of the pickles in a file of before 1.6, `0x1950a86a20f9469cfc6c`.
const MAGIC: &[u8] = &[
    0x80, 0x02, 0x8a, 0x0a, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19, b'.',
];

/// The elements of a storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Element {
    Candle(DType),
    /// Whole numbers that candle has no type for, as bytes of a sign or none.
    Byte,
}

impl Element {
    fn of(storage: &str) -> Option<Self> {
        Some(match storage {
            "FloatStorage" => Self::Candle(DType::F32),
            "DoubleStorage" => Self::Candle(DType::F64),
            "HalfStorage" => Self::Candle(DType::F16),
            "BFloat16Storage" => Self::Candle(DType::BF16),
            "LongStorage" => Self::Candle(DType::I64),
            "IntStorage" => Self::Candle(DType::I32),
            "ShortStorage" => Self::Candle(DType::I16),
            "ByteStorage" | "CharStorage" | "BoolStorage" => Self::Byte,
            _ => return None,
        })
    }

    fn dtype(self) -> DType {
        match self {
            Self::Candle(dtype) => dtype,
            Self::Byte => DType::U8,
        }
    }
}

/// A tensor, and where its numbers are.
#[derive(Debug)]
struct View {
    name: String,
    element: Element,
    /// Elements of its storage.
    numel: usize,
    offset: usize,
    shape: Vec<usize>,
    stride: Vec<usize>,
}

/// The tensors to read, by storage, and how they were found.
struct Plan {
    views: BTreeMap<String, Vec<View>>,
    found: StateDict,
}

pub(super) fn read_zip(path: &Path) -> Result<StateDict, String> {
    let damaged =
        |error: &dyn std::fmt::Display| format!("not a whole file of torch.save: {error}");
    let file = File::open(path).map_err(|error| format!("cannot be read: {error}"))?;
    let len = file.metadata().map_or(0, |metadata| metadata.len());
    let mut archive = ZipArchive::new(BufReader::new(file)).map_err(|error| damaged(&error))?;
    let names: Vec<String> = archive
        .file_names()
        .filter_map(|name| Some(name.ok()?.into_owned()))
        .collect();
    let pickle = names.iter().find(|name| name.ends_with("/data.pkl"));
    let folder = pickle.and_then(|name| name.strip_suffix("data.pkl"));
    let Some(folder) = folder else {
        return Err("a zip archive without data.pkl: expected what torch.save writes".into());
    };
    if names
        .iter()
        .any(|name| name.starts_with(&format!("{folder}code/")))
    {
        return Err(
            "a TorchScript module, not a state dict; in Python, write the state_dict() of the module"
                .into(),
        );
    }
    let byteorder = entry(&mut archive, &format!("{folder}byteorder"), 16);
    if byteorder.is_ok_and(|order| order.starts_with(b"big")) {
        return Err("written on a big-endian machine, which is not understood".into());
    }
    let pickle = entry(&mut archive, &format!("{folder}data.pkl"), len)?;
    let (pickle, _) = pickle::read(&pickle)?;
    let Plan { views, mut found } = plan(&pickle, "torch.save (zip)")?;
    check_size(&views, len)?;
    for (key, views) in views {
        let name = format!("{folder}data/{key}");
        let storage = entry(&mut archive, &name, len).map_err(|error| damaged(&error))?;
        read_views(&storage, &views, &mut found.tensors)?;
    }
    Ok(found)
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

/// A magic number, a version, facts of the machine, the object, the storages' keys, the storages.
pub(super) fn read_legacy(path: &Path) -> Result<StateDict, String> {
    let bytes = std::fs::read(path).map_err(|error| format!("cannot be read: {error}"))?;
    if !bytes.starts_with(MAGIC) {
        return Err(
            "a pickle that torch.save did not write; in Python, write the state dict by \
             safetensors.torch.save_file"
                .into(),
        );
    }
    let damaged = |error: String| format!("not a whole file of torch.save: {error}");
    let mut at = MAGIC.len();
    for _ in 0..2 {
        at += pickle::read(&bytes[at..]).map_err(damaged)?.1;
    }
    let (object, len) = pickle::read(&bytes[at..]).map_err(damaged)?;
    at += len;
    let Plan { views, mut found } = plan(&object, "torch.save (before PyTorch 1.6)")?;
    check_size(&views, bytes.len() as u64)?;
    let (keys, len) = pickle::read(&bytes[at..]).map_err(damaged)?;
    at += len;
    let Node::List(ids) = keys.node(keys.root()) else {
        return Err(damaged("no list of storages".into()));
    };
    // Where each storage's bytes are; its size is known from the tensors that use it, or of none.
    let sizes = storage_sizes(&object);
    let mut places = HashMap::new();
    for key in ids.iter().filter_map(|id| keys.text(*id)) {
        let early = || damaged(format!("storage {key}: the file ends too early"));
        let numel = bytes.get(at..at + 8).ok_or_else(early)?;
        let numel = u64::from_le_bytes(numel.try_into().map_err(|_| early())?);
        at += 8;
        let size =
            sizes.get(key).copied().ok_or_else(|| {
                format!("storage {key}: elements of a type that is not understood")
            })? as u64;
        let end = numel
            .checked_mul(size)
            .and_then(|len| len.checked_add(at as u64));
        let end = end
            .filter(|end| *end <= bytes.len() as u64)
            .ok_or_else(early)? as usize;
        places.insert(key, at..end);
        at = end;
    }
    for (key, views) in &views {
        let place = places.get(key.as_str());
        let place = place.ok_or_else(|| damaged(format!("storage {key} is missing")))?;
        read_views(&bytes[place.clone()], views, &mut found.tensors)?;
    }
    Ok(found)
}

/// Bytes per element of every storage that the object names.
fn storage_sizes(object: &Pickle) -> HashMap<String, usize> {
    let storages = object.persistent().filter_map(|id| storage(object, id));
    storages
        .map(|(key, element, _)| (key, element.dtype().size_in_bytes()))
        .collect()
}

/// Key, elements and length of the storage that a persistent identifier names.
fn storage(object: &Pickle, id: Id) -> Option<(String, Element, usize)> {
    let Node::Persistent(tuple) = object.node(id) else {
        return None;
    };
    let Node::Tuple(parts) = object.node(*tuple) else {
        return None;
    };
    let [word, kind, key, _, numel, ..] = parts[..] else {
        return None;
    };
    let ("torch" | "torch.storage", kind) = object.global(kind)? else {
        return None;
    };
    let Node::Int(numel) = object.node(numel) else {
        return None;
    };
    let known = object.text(word) == Some("storage");
    let element = Element::of(kind).filter(|_| known)?;
    Some((
        object.text(key)?.to_string(),
        element,
        usize::try_from(*numel).ok()?,
    ))
}

/// Finds the weights in an object, and what to read of which storage.
fn plan(object: &Pickle, format: &'static str) -> Result<Plan, String> {
    let root = object.root();
    let Some(top) = object.entries(root) else {
        return Err(match object.node(root) {
            Node::Tensor(tensor) => format!("one tensor of shape {:?}, not a model", tensor.shape),
            _ => {
                "no dictionary of tensors; in Python, save the state_dict() of the model, not the \
                  model"
                    .into()
            }
        });
    };
    let is_tensor = |id: &Id| matches!(object.node(*id), Node::Tensor(_));
    let wrapped = WRAPPERS.into_iter().find_map(|wrapper| {
        let entries = object.entries(*top.get(wrapper)?)?;
        entries
            .values()
            .any(is_tensor)
            .then_some((wrapper, entries))
    });
    let (wrapper, entries) = match wrapped {
        Some((wrapper, entries)) => (Some(wrapper.to_string()), entries),
        None => (None, top.clone()),
    };
    let mut found = StateDict {
        wrapper,
        ..StateDict::bare(Tensors::new(), format)
    };
    if let Some(wrapper) = &found.wrapper {
        let others = top.keys().filter(|key| *key != wrapper);
        found.beside = others.map(|key| (*key).to_string()).collect();
        found.beside.sort_unstable();
    }
    let mut views: BTreeMap<String, Vec<View>> = BTreeMap::new();
    let mut names: Vec<&str> = entries.keys().copied().collect();
    names.sort_unstable();
    for name in names {
        let Node::Tensor(tensor) = object.node(entries[name]) else {
            found.no_tensors.push(name.to_string());
            continue;
        };
        let (key, view) = view(object, name, tensor).map_err(|error| format!("{name}: {error}"))?;
        views.entry(key).or_default().push(view);
    }
    if views.is_empty() {
        let mut keys: Vec<&str> = top.keys().copied().collect();
        keys.sort_unstable();
        return Err(format!(
            "no tensors: expected them on top or under {}, found the keys {keys:?}",
            WRAPPERS.join(", ")
        ));
    }
    Ok(Plan { views, found })
}

fn view(object: &Pickle, name: &str, tensor: &TensorNode) -> Result<(String, View), String> {
    let (key, element, numel) =
        storage(object, tensor.storage).ok_or("elements of a type that is not understood")?;
    let sizes = |numbers: &[i64]| -> Option<Vec<usize>> {
        numbers.iter().map(|n| usize::try_from(*n).ok()).collect()
    };
    let negative = "a negative size";
    let (shape, stride) = (sizes(&tensor.shape), sizes(&tensor.stride));
    let (shape, stride) = (shape.ok_or(negative)?, stride.ok_or(negative)?);
    let offset = usize::try_from(tensor.offset).map_err(|_| negative)?;
    let beyond = || format!("{shape:?} lies beyond its storage of {numel} elements");
    if shape.len() != stride.len() {
        return Err("shape and stride of different lengths".into());
    }
    let elements = checked_elements(&shape, element.dtype()).ok_or_else(beyond)?;
    if offset > numel {
        return Err(beyond());
    }
    if elements > 0 {
        let last = shape
            .iter()
            .zip(&stride)
            .try_fold(offset, |last, (size, stride)| {
                last.checked_add((size - 1).checked_mul(*stride)?)
            });
        last.filter(|last| *last < numel).ok_or_else(beyond)?;
    }
    if elements > numel {
        return Err(format!(
            "{elements} elements over a storage of {numel}, as an expanded tensor has; save a \
             contiguous copy of it"
        ));
    }
    let view = View {
        name: name.to_string(),
        element,
        numel,
        offset,
        shape,
        stride,
    };
    Ok((key, view))
}

/// Refuses a file whose tensors ask for more than twice its length: so many can share a storage that
/// memory would not do.
fn check_size(views: &BTreeMap<String, Vec<View>>, len: u64) -> Result<(), String> {
    let size = |view: &View| {
        let elements: usize = view.shape.iter().product();
        (elements * view.element.dtype().size_in_bytes()) as u64
    };
    let sizes = views.values().flatten().map(size);
    let total = sizes.fold(0, u64::saturating_add);
    if total > len.saturating_mul(2) {
        return Err(format!(
            "tensors of {total} bytes in a file of {len}: too many share their numbers"
        ));
    }
    Ok(())
}

/// Reads the tensors that view one storage.
fn read_views(storage: &[u8], views: &[View], tensors: &mut Tensors) -> Result<(), String> {
    for view in views {
        let fail = |error: &dyn std::fmt::Display| format!("{}: {error}", view.name);
        let dtype = view.element.dtype();
        let size = dtype.size_in_bytes();
        if storage.len() < view.numel.saturating_mul(size) {
            return Err(fail(&format!(
                "expected a storage of {} elements of {size} bytes, found {} bytes",
                view.numel,
                storage.len()
            )));
        }
        let bytes = gathered(storage, view, size);
        let tensor = tensor_of(&bytes, dtype, &view.shape).map_err(|error| fail(&error))?;
        tensors.insert(view.name.clone(), tensor);
    }
    Ok(())
}

/// The bytes of a tensor, row by row.
fn gathered(storage: &[u8], view: &View, size: usize) -> Vec<u8> {
    let elements: usize = view.shape.iter().product();
    if elements == 0 {
        return Vec::new();
    }
    let mut bytes = Vec::with_capacity(elements * size);
    let contiguous = {
        let mut expected = 1;
        let sides = view.shape.iter().zip(&view.stride).rev();
        sides.into_iter().all(|(side, stride)| {
            let fits = *side == 1 || *stride == expected;
            expected *= side;
            fits
        })
    };
    if contiguous {
        bytes.extend_from_slice(&storage[view.offset * size..][..elements * size]);
        return bytes;
    }
    let mut index = vec![0; view.shape.len()];
    for _ in 0..elements {
        let place = index.iter().zip(&view.stride).map(|(i, stride)| i * stride);
        let at = (view.offset + place.sum::<usize>()) * size;
        bytes.extend_from_slice(&storage[at..at + size]);
        for (i, side) in index.iter_mut().zip(&view.shape).rev() {
            *i += 1;
            if *i < *side {
                break;
            }
            *i = 0;
        }
    }
    bytes
}
