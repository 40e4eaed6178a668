//! From a path to the module that defines what it names, through every re-export.

use crate::collect::{Kind, Mention};
use crate::tree::{Binding, Tree};

/// Re-exports of re-exports that are followed; only a circle of them is longer.
const MOST_STEPS: usize = 8;

/// What a path leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    Module(usize),
    /// An item, or a part of it, that the module defines.
    Item {
        module: usize,
        name: String,
    },
    /// Another crate, by the path that names it there, or what no source defines.
    Elsewhere(Vec<String>),
}

/// Where a path leads, and the first module on the way that only imports what the path takes there.
#[derive(Debug)]
pub(crate) struct Resolved {
    pub(crate) place: Place,
    pub(crate) facade: Option<usize>,
}

/// What a name has to be where it stands.
#[derive(Debug, Clone, Copy)]
enum Wanted {
    /// Something that has names in it.
    Space,
    Value,
    Any,
}

impl Wanted {
    /// The order in which bindings of one name are taken.
    fn rank(self, binding: &Binding) -> u32 {
        match (self, binding) {
            (Self::Space | Self::Any, Binding::Module(_)) | (Self::Value, Binding::Value) => 0,
            (Self::Space | Self::Any, Binding::Type | Binding::Both)
            | (Self::Value, Binding::Both) => 1,
            (Self::Any, Binding::Value) => 2,
            (_, Binding::Import(_)) => 3,
            _ => 4,
        }
    }
}

/// Follows what the module `from` mentions.
pub(crate) fn resolve(tree: &Tree, from: usize, mention: &Mention) -> Resolved {
    let wanted = match &mention.kind {
        Kind::Type => Wanted::Space,
        Kind::Value => Wanted::Value,
        Kind::Use(import) if import.is_glob => Wanted::Space,
        Kind::Use(_) => Wanted::Any,
    };
    let walk = Walk {
        tree,
        steps: 0,
        with_globs: true,
    };
    walk.walk(from, &mention.path, wanted)
}

#[derive(Debug, Clone, Copy)]
struct Walk<'a> {
    tree: &'a Tree,
    steps: usize,
    /// Off while the path of a glob is followed: no glob gives the beginning of its own path.
    with_globs: bool,
}

impl Walk<'_> {
    fn next(self, with_globs: bool) -> Self {
        Self {
            steps: self.steps + 1,
            with_globs,
            ..self
        }
    }

    fn walk(self, from: usize, path: &[String], wanted: Wanted) -> Resolved {
        let elsewhere = || Place::Elsewhere(path.to_vec());
        let mut facade = None;
        let Some((mut at, start)) = self.start(from, path) else {
            let place = elsewhere();
            return Resolved { place, facade };
        };
        for (index, name) in path.iter().enumerate().skip(start) {
            let is_last = index + 1 == path.len();
            let wanted = if is_last { wanted } else { Wanted::Space };
            let place = match self.lookup(at, name, wanted) {
                Some(Binding::Module(module)) => Place::Module(module),
                Some(Binding::Import(target)) => {
                    if at != from && facade.is_none() {
                        facade = Some(at);
                    }
                    self.next(true).walk(at, &target, wanted).place
                }
                Some(_) => Place::Item {
                    module: at,
                    name: name.clone(),
                },
                None => elsewhere(),
            };
            match place {
                Place::Module(module) => at = module,
                place => return Resolved { place, facade },
            }
        }
        let place = Place::Module(at);
        Resolved { place, facade }
    }

    /// The module in which a path begins, and how many of its parts say so.
    fn start(self, from: usize, path: &[String]) -> Option<(usize, usize)> {
        if self.steps > MOST_STEPS {
            return None;
        }
        match path.first()?.as_str() {
            "crate" => Some((0, 1)),
            "self" | "super" => {
                let mut at = from;
                let mut parts = 0;
                for part in path {
                    match part.as_str() {
                        "self" => {}
                        "super" => at = self.tree.modules[at].parent?,
                        _ => break,
                    }
                    parts += 1;
                }
                Some((at, parts))
            }
            _ => Some((from, 0)),
        }
    }

    fn lookup(self, at: usize, name: &str, wanted: Wanted) -> Option<Binding> {
        if self.steps > MOST_STEPS {
            return None;
        }
        let module = &self.tree.modules[at];
        let bindings = module.names.get(name).into_iter().flatten();
        let binding = bindings.min_by_key(|binding| wanted.rank(binding));
        if let Some(binding) = binding {
            return Some(binding.clone());
        }
        let globs = module.globs.iter().filter(|_| self.with_globs);
        globs.into_iter().find_map(|glob| {
            let Place::Module(inner) = self.next(false).walk(at, glob, Wanted::Space).place else {
                return None;
            };
            self.next(true).lookup(inner, name, wanted)?;
            let mut target = glob.clone();
            target.push(name.to_string());
            Some(Binding::Import(target))
        })
    }
}
