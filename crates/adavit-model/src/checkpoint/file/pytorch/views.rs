//! The tensors of a state dict, and which numbers of which storage they are.

use std::collections::{BTreeMap, HashMap};

use candle_core::DType;

use crate::checkpoint::file::pickle::Pickle;
use crate::checkpoint::file::pickle::node::{Id, Node, TensorNode};
use crate::checkpoint::file::state_dict::{StateDict, checked_elements, tensor_of};
use crate::checkpoint::tensors::Tensors;

/// Where training code puts weights, the better ones first: as timm and the published AdaViT code
/// look for them, then others.
const WRAPPERS: [&str; 12] = [
    "state_dict_ema",
    "model_ema",
    "state_dict",
    "model",
    "model_state_dict",
    "ema",
    "teacher",
    "net",
    "network",
    "backbone",
    "module",
    "student",
];

/// How deep weights may be in dictionaries.
const DEEPEST: usize = 4;

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
pub(super) struct View {
    name: String,
    element: Element,
    /// Elements of its storage.
    numel: usize,
    offset: usize,
    shape: Vec<usize>,
    stride: Vec<usize>,
}

/// The tensors to read, by the key of their storage, and how they were found.
pub(super) struct Wanted {
    pub(super) views: BTreeMap<String, Vec<View>>,
    pub(super) found: StateDict,
}

/// What a persistent identifier stands for.
pub(super) struct Storage {
    pub(super) key: String,
    element: Element,
    /// Its elements.
    numel: usize,
}

impl Storage {
    /// The storage that a node names.
    pub(super) fn of(object: &Pickle, id: Id) -> Option<Self> {
        let Node::Persistent(tuple) = object.node(id) else {
            return None;
        };
        let Node::Tuple(parts) = object.node(*tuple) else {
            return None;
        };
        let [word, class, key, _, numel, ..] = parts[..] else {
            return None;
        };
        let ("torch" | "torch.storage", class) = object.global(class)? else {
            return None;
        };
        let Node::Int(numel) = object.node(numel) else {
            return None;
        };
        let known = object.text(word) == Some("storage");
        Some(Self {
            element: Element::of(class).filter(|_| known)?,
            key: object.text(key)?.to_string(),
            numel: usize::try_from(*numel).ok()?,
        })
    }

    /// Bytes of an element.
    pub(super) fn element_size(&self) -> usize {
        self.element.dtype().size_in_bytes()
    }
}

/// Finds the weights in an object, and what to read of which storage.
pub(super) fn wanted(object: &Pickle, format: &'static str) -> Result<Wanted, String> {
    let top = object.entries(object.root());
    let top = top.ok_or_else(|| no_dictionary(object))?;
    let mut found = StateDict::bare(Tensors::new(), format);
    let entries = match weights(object, &top, 0) {
        Some(Weights { keys, entries }) => {
            if let [outermost, ..] = keys[..] {
                found.wrapper = Some(keys.join("."));
                found.beside = sorted(top.keys().copied().filter(|key| *key != outermost));
            }
            entries
        }
        None => top.clone(),
    };
    let mut views: BTreeMap<String, Vec<View>> = BTreeMap::new();
    for name in sorted(entries.keys().copied()) {
        let Node::Tensor(tensor) = object.node(entries[name.as_str()]) else {
            found.no_tensors.push(name);
            continue;
        };
        let (key, view) =
            view(object, &name, tensor).map_err(|error| format!("{name}: {error}"))?;
        views.entry(key).or_default().push(view);
    }
    if views.is_empty() {
        return Err(format!(
            "no tensors: expected them on top or under {}, found the keys {:?}",
            WRAPPERS.join(", "),
            sorted(top.keys().copied())
        ));
    }
    Ok(Wanted { views, found })
}

/// A dictionary of tensors, and the keys that lead to it.
struct Weights<'a> {
    keys: Vec<&'static str>,
    entries: HashMap<&'a str, Id>,
}

/// Finds the dictionary of tensors in nested dictionaries; the one deepest under known keys counts.
fn weights<'a>(
    object: &'a Pickle,
    entries: &HashMap<&'a str, Id>,
    depth: usize,
) -> Option<Weights<'a>> {
    let under = |wrapper: &'static str| {
        let inner = object.entries(*entries.get(wrapper)?)?;
        let mut found = weights(object, &inner, depth + 1)?;
        found.keys.insert(0, wrapper);
        Some(found)
    };
    let nested = (depth < DEEPEST).then(|| WRAPPERS.into_iter().find_map(under));
    let is_tensor = |id: &Id| matches!(object.node(*id), Node::Tensor(_));
    nested.flatten().or_else(|| {
        entries.values().any(is_tensor).then(|| Weights {
            keys: Vec::new(),
            entries: entries.clone(),
        })
    })
}

/// What an object is in place of a dictionary of tensors.
fn no_dictionary(object: &Pickle) -> String {
    match object.node(object.root()) {
        Node::Tensor(tensor) => format!("one tensor of shape {:?}, not a model", tensor.shape),
        _ => "no dictionary of tensors; in Python, save the state_dict() of the model, not the \
              model"
            .into(),
    }
}

fn sorted<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut names: Vec<String> = names.map(String::from).collect();
    names.sort_unstable();
    names
}

fn view(object: &Pickle, name: &str, tensor: &TensorNode) -> Result<(String, View), String> {
    let storage = Storage::of(object, tensor.storage);
    let storage = storage.ok_or("elements of a type that is not understood")?;
    let Storage {
        key,
        element,
        numel,
    } = storage;
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
        last_element(offset, &shape, &stride)
            .filter(|last| *last < numel)
            .ok_or_else(beyond)?;
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

/// The place of the last element of a view, if it is a number.
fn last_element(offset: usize, shape: &[usize], stride: &[usize]) -> Option<usize> {
    let mut sides = shape.iter().zip(stride);
    sides.try_fold(offset, |last, (size, stride)| {
        last.checked_add((size - 1).checked_mul(*stride)?)
    })
}

/// Refuses a file whose tensors ask for more than twice its length: so many can share a storage that
/// memory would not do.
pub(super) fn check_size(views: &BTreeMap<String, Vec<View>>, len: u64) -> Result<(), String> {
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
pub(super) fn read_views(
    storage: &[u8],
    views: &[View],
    tensors: &mut Tensors,
) -> Result<(), String> {
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
