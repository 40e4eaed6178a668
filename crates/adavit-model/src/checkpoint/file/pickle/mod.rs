//! Python's pickles as data: what `torch.save` writes, of every protocol, and nothing run.
//!
//! A pickle is a program for a stack machine. This one knows its stack and memory operations, builds
//! lists, tuples and dictionaries, and takes three callables by name: those that make an ordered
//! dictionary, a tensor and a parameter. Every other object becomes [`Node::Opaque`].
//!
//! Values are nodes of one arena, referred to by number: shared and cyclic values cost nothing, no
//! depth of nesting can exhaust the stack, and there are no more nodes than bytes. What calls copy has
//! a bound of its own.

mod machine;
pub(super) mod node;
mod reader;

use std::collections::HashMap;

use self::machine::Machine;
use self::node::{Id, Node, Nodes, global};

/// The longest name of a tensor or a key, in bytes.
const LONGEST_KEY: usize = 4096;

/// A pickle that was read.
#[derive(Debug)]
pub(super) struct Pickle<'a> {
    bytes: &'a [u8],
    nodes: Nodes,
    root: Id,
}

impl Pickle<'_> {
    pub(super) fn root(&self) -> Id {
        self.root
    }

    pub(super) fn node(&self, id: Id) -> &Node {
        self.nodes.get(id)
    }

    /// Every node that a persistent identifier stands for.
    pub(super) fn persistent(&self) -> impl Iterator<Item = Id> {
        let nodes = self.nodes.iter().enumerate();
        nodes.filter_map(|(id, node)| matches!(node, Node::Persistent(_)).then_some(id))
    }

    /// The text of a node, if it is one, and no longer than a name.
    pub(super) fn text(&self, id: Id) -> Option<&str> {
        match self.nodes.get(id) {
            Node::Text(range) if range.len() <= LONGEST_KEY => {
                std::str::from_utf8(&self.bytes[range.clone()]).ok()
            }
            _ => None,
        }
    }

    /// Module and name of a node, if it is a global.
    pub(super) fn global(&self, id: Id) -> Option<(&str, &str)> {
        global(self.bytes, self.nodes.get(id))
    }

    /// The entries of a dictionary with names for keys, the last of each.
    pub(super) fn entries(&self, id: Id) -> Option<HashMap<&str, Id>> {
        let Node::Dict(entries) = self.nodes.get(id) else {
            return None;
        };
        let named = entries.iter();
        Some(
            named
                .filter_map(|(key, value)| Some((self.text(*key)?, *value)))
                .collect(),
        )
    }
}

/// Reads one pickle from the beginning of `bytes`; also returns its length.
pub(super) fn read(bytes: &[u8]) -> Result<(Pickle<'_>, usize), String> {
    let mut machine = Machine::new(bytes);
    let root = machine
        .run()
        .map_err(|message| format!("pickle, byte {}: {message}", machine.at()))?;
    let len = machine.at();
    let pickle = Pickle {
        bytes,
        nodes: machine.into_nodes(),
        root,
    };
    Ok((pickle, len))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_values_of_old_and_new_protocols_are_read() {
        // pickle.dumps({"a": 1, "b": [2, -3], "c": 2**70}, protocol=0 and 4).
        let old =
            b"(dp0\nVa\np1\nI1\nsVb\np2\n(lp3\nI2\naI-3\nasVc\np4\nL1180591620717411303424L\ns.";
        let new = b"\x80\x04\x95\x2c\x00\x00\x00\x00\x00\x00\x00}\x94(\x8c\x01a\x94K\x01\x8c\x01b\x94]\x94(K\x02J\xfd\xff\xff\xffe\x8c\x01c\x94\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x00@u.";
        for bytes in [&old[..], new] {
            let (pickle, len) = read(bytes).unwrap();
            assert_eq!(len, bytes.len());
            let entries = pickle.entries(pickle.root()).unwrap();
            assert_eq!(pickle.node(entries["a"]), &Node::Int(1));
            assert_eq!(pickle.node(entries["c"]), &Node::Opaque);
            let Node::List(items) = pickle.node(entries["b"]) else {
                panic!("no list");
            };
            let items: Vec<&Node> = items.iter().map(|id| pickle.node(*id)).collect();
            assert_eq!(items, [&Node::Int(2), &Node::Int(-3)]);
        }
    }

    #[test]
    fn a_call_of_anything_else_is_opaque() {
        // os.system("echo"), as pickle would run it.
        let (pickle, _) = read(b"cposix\nsystem\n(S'echo'\ntR.").unwrap();
        assert_eq!(pickle.node(pickle.root()), &Node::Opaque);
    }

    #[test]
    fn deep_nesting_and_cycles_are_just_nodes() {
        let mut deep = vec![b')'; 1];
        deep.resize(1_000_001, 0x85);
        deep.push(b'.');
        read(&deep).unwrap();
        // A list that holds itself.
        let (pickle, _) = read(b"]q\x00h\x00a.").unwrap();
        assert_eq!(pickle.node(pickle.root()), &Node::List(vec![pickle.root()]));
        // A tensor whose type makes itself.
        let nested = b"ctorch._tensor\n_rebuild_from_type_v2\nq\x00(h\x00Nh\x00tR.";
        read(nested).unwrap();
    }
}
