//! The values of a pickle: nodes of one arena, which refer to each other by number.

use std::ops::Range;

/// The number of a node.
pub(crate) type Id = usize;

/// More values than any state dict needs, with its optimizer; bounds memory.
pub(super) const MOST_NODES: usize = 1 << 20;

/// The most dimensions of a tensor; PyTorch has 64.
pub(super) const MOST_DIMS: usize = 64;

/// The node of everything that needs no number of its own.
pub(super) const OPAQUE: Id = 0;

/// The longest name of a callable, in bytes.
const LONGEST_NAME: usize = 256;

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Node {
    Int(i64),
    /// Text or bytes, where they are in the pickle.
    Text(Range<usize>),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    /// A module and a name in it.
    Global(Range<usize>, Range<usize>),
    /// What a persistent identifier stands for: in torch's files a storage.
    Persistent(Id),
    Tensor(TensorNode),
    /// Nothing, a truth value, a number with a fraction, or an object that is not understood.
    Opaque,
}

/// A view of a storage.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TensorNode {
    pub(crate) storage: Id,
    pub(crate) offset: i64,
    pub(crate) shape: Vec<i64>,
    pub(crate) stride: Vec<i64>,
}

/// Every value of a pickle.
#[derive(Debug)]
pub(super) struct Nodes(Vec<Node>);

impl Nodes {
    pub(super) fn new() -> Self {
        Self(vec![Node::Opaque])
    }

    pub(super) fn push(&mut self, node: Node) -> Result<Id, String> {
        if self.0.len() >= MOST_NODES {
            return Err(format!("more than {MOST_NODES} values"));
        }
        self.0.push(node);
        Ok(self.0.len() - 1)
    }

    pub(super) fn get(&self, id: Id) -> &Node {
        &self.0[id]
    }

    pub(super) fn get_mut(&mut self, id: Id) -> &mut Node {
        &mut self.0[id]
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Node> {
        self.0.iter()
    }

    /// The tensor of these arguments of `_rebuild_tensor`, if they are such.
    pub(super) fn tensor(&self, args: &[Id]) -> Option<TensorNode> {
        let [storage, offset, shape, stride, ..] = args else {
            return None;
        };
        Some(TensorNode {
            storage: *storage,
            offset: self.int(*offset)?,
            shape: self.ints(*shape)?,
            stride: self.ints(*stride)?,
        })
    }

    /// The pairs of a list of pairs.
    pub(super) fn pairs_of(&self, id: Id) -> Vec<(Id, Id)> {
        let (Node::List(items) | Node::Tuple(items)) = &self.0[id] else {
            return Vec::new();
        };
        let pair = |id: &Id| match &self.0[*id] {
            Node::Tuple(pair) | Node::List(pair) if pair.len() == 2 => Some((pair[0], pair[1])),
            _ => None,
        };
        items.iter().filter_map(pair).collect()
    }

    fn int(&self, id: Id) -> Option<i64> {
        match self.0[id] {
            Node::Int(n) => Some(n),
            _ => None,
        }
    }

    fn ints(&self, id: Id) -> Option<Vec<i64>> {
        match &self.0[id] {
            Node::Tuple(items) | Node::List(items) if items.len() <= MOST_DIMS => {
                items.iter().map(|item| self.int(*item)).collect()
            }
            _ => None,
        }
    }
}

/// Module and name of a node, if it is a global.
pub(super) fn global<'a>(bytes: &'a [u8], node: &Node) -> Option<(&'a str, &'a str)> {
    let Node::Global(module, name) = node else {
        return None;
    };
    if module.len().max(name.len()) > LONGEST_NAME {
        return None;
    }
    let text = |range: &Range<usize>| std::str::from_utf8(&bytes[range.clone()]).ok();
    Some((text(module)?, text(name)?))
}
