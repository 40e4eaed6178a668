//! The stack machine that a pickle is a program for, one operation after the other.

use std::collections::HashMap;

use super::node::{Id, MOST_DIMS, MOST_NODES, Node, Nodes, OPAQUE, global};
use super::reader::Reader;

/// How many values calls may copy out of others, in all: one argument can serve any number of calls.
const MOST_COPIED: usize = 1 << 19;

/// The machine, and what it has built.
pub(super) struct Machine<'a> {
    reader: Reader<'a>,
    nodes: Nodes,
    stack: Vec<Id>,
    /// How high the stack was at each mark.
    marks: Vec<usize>,
    memo: HashMap<u64, Id>,
    /// Values that calls have copied.
    copied: usize,
}

type Step<T = ()> = Result<T, String>;

impl<'a> Machine<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self {
            reader: Reader::new(bytes),
            nodes: Nodes::new(),
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            copied: 0,
        }
    }

    /// How many bytes it has read.
    pub(super) fn at(&self) -> usize {
        self.reader.at()
    }

    /// The values that it has built.
    pub(super) fn into_nodes(self) -> Nodes {
        self.nodes
    }

    /// Runs to the end of the pickle, and returns what it is.
    pub(super) fn run(&mut self) -> Step<Id> {
        loop {
            let [code] = self.reader.array()?;
            if code == b'.' {
                return self.pop();
            }
            if self.stack.len().max(self.memo.len()) > MOST_NODES {
                return Err(format!("more than {MOST_NODES} values"));
            }
            let known = self.value(code)?
                || self.stack_operation(code)?
                || self.container(code)?
                || self.object(code)?;
            if !known {
                return Err(format!("operation {code:#04x} is not understood"));
            }
        }
    }

    /// Operations that push a plain value.
    fn value(&mut self, code: u8) -> Step<bool> {
        match code {
            // None, true, false.
            b'N' | 0x88 | 0x89 => self.stack.push(OPAQUE),
            b'G' => {
                self.reader.take(8)?;
                self.stack.push(OPAQUE);
            }
            b'F' => {
                self.reader.line()?;
                self.stack.push(OPAQUE);
            }
            b'J' => {
                let number = i32::from_le_bytes(self.reader.array()?);
                self.push(Node::Int(i64::from(number)))?;
            }
            b'K' => {
                let [byte] = self.reader.array()?;
                self.push(Node::Int(i64::from(byte)))?;
            }
            b'M' => {
                let number = u16::from_le_bytes(self.reader.array()?);
                self.push(Node::Int(i64::from(number)))?;
            }
            b'I' | b'L' => {
                let text = self.reader.text_line()?;
                let number = text.trim_end_matches('L').parse().map(Node::Int);
                self.push(number.unwrap_or(Node::Opaque))?;
            }
            0x8a | 0x8b => {
                let n = self.reader.unsigned(if code == 0x8a { 1 } else { 4 })?;
                let range = self.reader.take(n)?;
                let node = long(&self.reader.bytes()[range]);
                self.push(node)?;
            }
            b'S' | b'V' => {
                let text = self.reader.unquoted_line()?;
                self.push(Node::Text(text))?;
            }
            // Text and bytes by the size of their length.
            b'U' | b'C' | 0x8c => self.sized_text(1)?,
            b'T' | b'X' | b'B' => self.sized_text(4)?,
            0x8d | 0x8e | 0x96 => self.sized_text(8)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Operations of the stack and the memory, and those of which nothing comes.
    fn stack_operation(&mut self, code: u8) -> Step<bool> {
        match code {
            // Protocol and frames.
            0x80 | 0x95 => {
                self.reader.take(if code == 0x80 { 1 } else { 8 })?;
            }
            b'0' => drop(self.pop()?),
            b'1' => drop(self.pop_mark()?),
            b'2' => {
                let top = self.top()?;
                self.stack.push(top);
            }
            b'(' => self.marks.push(self.stack.len()),
            b'p' | b'q' | b'r' | b'g' | b'h' | b'j' => self.memory(code)?,
            0x94 => {
                let top = self.top()?;
                self.memo.insert(self.memo.len() as u64, top);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn memory(&mut self, code: u8) -> Step {
        let key = match code {
            b'q' | b'h' => self.reader.unsigned(1)? as u64,
            b'r' | b'j' => self.reader.unsigned(4)? as u64,
            _ => {
                let text = self.reader.text_line()?;
                text.parse()
                    .map_err(|_| "a memory place without a number")?
            }
        };
        if matches!(code, b'p' | b'q' | b'r') {
            let top = self.top()?;
            self.memo.insert(key, top);
            return Ok(());
        }
        let id = self.memo.get(&key).copied();
        self.stack
            .push(id.ok_or("a memory place that nothing was put into")?);
        Ok(())
    }

    /// Operations of tuples, lists, dictionaries and sets.
    fn container(&mut self, code: u8) -> Step<bool> {
        match code {
            b')' => self.push(Node::Tuple(Vec::new()))?,
            b']' | 0x8f => self.push(Node::List(Vec::new()))?,
            b'}' => self.push(Node::Dict(Vec::new()))?,
            0x85..=0x87 => {
                let items = self.pop_many(usize::from(code) - 0x84)?;
                self.push(Node::Tuple(items))?;
            }
            b't' => {
                let items = self.pop_mark()?;
                self.push(Node::Tuple(items))?;
            }
            b'l' | 0x91 => {
                let items = self.pop_mark()?;
                self.push(Node::List(items))?;
            }
            b'd' => {
                let items = self.pop_mark()?;
                self.push(Node::Dict(pairs(&items)))?;
            }
            b'a' => {
                let items = self.pop_many(1)?;
                self.append(&items)?;
            }
            b'e' | 0x90 => {
                let items = self.pop_mark()?;
                self.append(&items)?;
            }
            b's' => {
                let items = self.pop_many(2)?;
                self.set(&items)?;
            }
            b'u' => {
                let items = self.pop_mark()?;
                self.set(&items)?;
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Operations that name or make objects.
    fn object(&mut self, code: u8) -> Step<bool> {
        match code {
            b'c' => {
                let (module, name) = (self.reader.line()?, self.reader.line()?);
                self.push(Node::Global(module, name))?;
            }
            0x93 => {
                let parts = self.pop_many(2)?;
                let node = match (self.nodes.get(parts[0]), self.nodes.get(parts[1])) {
                    (Node::Text(module), Node::Text(name)) => {
                        Node::Global(module.clone(), name.clone())
                    }
                    _ => return Err("a global without a name".into()),
                };
                self.push(node)?;
            }
            b'Q' => {
                let id = self.pop()?;
                self.push(Node::Persistent(id))?;
            }
            b'R' | 0x81 => {
                let parts = self.pop_many(2)?;
                self.call(parts[0], parts[1])?;
            }
            0x92 => {
                self.pop_many(3)?;
                self.stack.push(OPAQUE);
            }
            b'o' => {
                self.pop_mark()?;
                self.stack.push(OPAQUE);
            }
            b'i' => {
                self.reader.line()?;
                self.reader.line()?;
                self.pop_mark()?;
                self.stack.push(OPAQUE);
            }
            // The state of an object: a dictionary's attributes, a namespace's values.
            b'b' => drop(self.pop()?),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Pushes what a callable makes of its arguments.
    fn call(&mut self, mut callable: Id, mut args: Id) -> Step {
        loop {
            self.charge(args)?;
            let name = global(self.reader.bytes(), self.nodes.get(callable));
            let items: &[Id] = match self.nodes.get(args) {
                Node::Tuple(items) => items,
                _ => &[],
            };
            let node = match (name, items) {
                (Some(("collections", "OrderedDict")), _) => Node::Dict(
                    items
                        .first()
                        .map_or_else(Vec::new, |id| self.nodes.pairs_of(*id)),
                ),
                (Some(("torch._utils", "_rebuild_tensor_v2" | "_rebuild_tensor")), _) => {
                    self.nodes.tensor(items).map_or(Node::Opaque, Node::Tensor)
                }
                (
                    Some(("torch._utils", "_rebuild_parameter" | "_rebuild_parameter_with_state")),
                    [data, ..],
                ) => {
                    self.stack.push(*data);
                    return Ok(());
                }
                // A tensor of a subclass: what makes the tensor, and its arguments. Those are older
                // than the tuple that holds them, so this ends.
                (Some(("torch._tensor", "_rebuild_from_type_v2")), [inner, _, inner_args, ..])
                    if *inner_args < args =>
                {
                    (callable, args) = (*inner, *inner_args);
                    continue;
                }
                _ => Node::Opaque,
            };
            return self.push(node);
        }
    }

    /// Counts what a call may copy of its arguments, one level down.
    fn charge(&mut self, args: Id) -> Step {
        let len = |id: Id| match self.nodes.get(id) {
            Node::Tuple(items) | Node::List(items) => items.len(),
            _ => 0,
        };
        let within: usize = match self.nodes.get(args) {
            Node::Tuple(items) => items.iter().take(MOST_DIMS).map(|id| len(*id)).sum(),
            _ => 0,
        };
        self.copied = self.copied.saturating_add(1 + within);
        if self.copied > MOST_COPIED {
            return Err(format!("calls copy more than {MOST_COPIED} values"));
        }
        Ok(())
    }

    fn append(&mut self, items: &[Id]) -> Step {
        let top = self.top()?;
        if let Node::List(list) = self.nodes.get_mut(top) {
            list.extend_from_slice(items);
        }
        Ok(())
    }

    fn set(&mut self, items: &[Id]) -> Step {
        let top = self.top()?;
        if let Node::Dict(entries) = self.nodes.get_mut(top) {
            entries.extend(pairs(items));
        }
        Ok(())
    }

    fn push(&mut self, node: Node) -> Step {
        let id = self.nodes.push(node)?;
        self.stack.push(id);
        Ok(())
    }

    fn top(&self) -> Step<Id> {
        let id = self.stack.last().copied();
        id.ok_or_else(|| "the stack is empty".into())
    }

    fn pop(&mut self) -> Step<Id> {
        let id = self.top()?;
        self.stack.pop();
        Ok(id)
    }

    /// The uppermost `n` values, lowest first.
    fn pop_many(&mut self, n: usize) -> Step<Vec<Id>> {
        let rest = self.stack.len().checked_sub(n);
        Ok(self.stack.split_off(rest.ok_or("the stack is empty")?))
    }

    /// The values above the last mark.
    fn pop_mark(&mut self) -> Step<Vec<Id>> {
        let mark = self.marks.pop().ok_or("no mark on the stack")?;
        if mark > self.stack.len() {
            return Err("a mark above the stack".into());
        }
        Ok(self.stack.split_off(mark))
    }

    fn sized_text(&mut self, width: usize) -> Step {
        let len = self.reader.unsigned(width)?;
        let range = self.reader.take(len)?;
        self.push(Node::Text(range))
    }
}

fn pairs(items: &[Id]) -> Vec<(Id, Id)> {
    let pairs = items.as_chunks::<2>().0.iter();
    pairs.map(|[key, value]| (*key, *value)).collect()
}

/// A little-endian integer in two's complement; what does not fit 64 bits is opaque.
fn long(bytes: &[u8]) -> Node {
    if bytes.len() > 8 {
        return Node::Opaque;
    }
    let negative = bytes.last().is_some_and(|byte| *byte >= 0x80);
    let mut full = if negative { [0xff; 8] } else { [0; 8] };
    full[..bytes.len()].copy_from_slice(bytes);
    Node::Int(i64::from_le_bytes(full))
}
