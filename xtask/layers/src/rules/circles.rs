//! No files of a crate import each other in a circle.
//!
//! A file imports another if a `use` or a path in it leads to an item that the other defines,
//! through whatever re-exports. `mod` and the re-export of an item of its own child do not count,
//! nor does what only tests see. What a method's name or an inferred type leads to has no path, and
//! is not seen.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::PathBuf;

use crate::collect::{Kind, Mention};
use crate::report::{Finding, Report};
use crate::resolve::{Place, resolve};
use crate::tree::Tree;

const RULE: &str = "no files of a crate import each other in a circle";

const FIX: &str = "move what both need into a file that imports neither, or pass it as an argument";

/// Checks the files of each target.
pub(crate) fn check(trees: &[Tree]) -> Report {
    Report::new(RULE, trees.iter().flat_map(circles).collect())
}

/// From a file to those that it imports, by the names that tie them.
type Edges = BTreeMap<PathBuf, BTreeMap<PathBuf, Tie>>;

/// What one file takes from another.
#[derive(Debug)]
struct Tie {
    /// The first line that does.
    line: usize,
    names: BTreeSet<String>,
}

fn circles(tree: &Tree) -> Vec<Finding> {
    let edges = edges(tree);
    let reached: BTreeMap<_, _> = edges
        .keys()
        .map(|file| (file, reached(&edges, file)))
        .collect();
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for (file, others) in &reached {
        if !others.contains(file) || seen.contains(file) {
            continue;
        }
        let circle: BTreeSet<_> = others
            .iter()
            .copied()
            .filter(|other| reached.get(other).is_some_and(|back| back.contains(file)))
            .collect();
        found.push(finding(&edges, &circle));
        seen.extend(circle);
    }
    found
}

/// The files that a file imports, directly or not.
fn reached<'a>(edges: &'a Edges, file: &PathBuf) -> BTreeSet<&'a PathBuf> {
    let mut reached = BTreeSet::new();
    let mut open = vec![file];
    while let Some(file) = open.pop() {
        for next in edges.get(file).into_iter().flat_map(BTreeMap::keys) {
            if reached.insert(next) {
                open.push(next);
            }
        }
    }
    reached
}

fn finding(edges: &Edges, circle: &BTreeSet<&PathBuf>) -> Finding {
    let ties: Vec<_> = circle
        .iter()
        .filter_map(|file| Some((*file, edges.get(*file)?)))
        .flat_map(|(file, others)| others.iter().map(move |(other, tie)| (file, other, tie)))
        .filter(|(_, other, _)| circle.contains(other))
        .collect();
    let mut found = format!("{} files import each other in a circle", circle.len());
    for (file, other, tie) in &ties {
        let names: Vec<_> = tie.names.iter().map(String::as_str).collect();
        // Writing to a string cannot fail.
        let _ = write!(
            found,
            "\n    {}:{} imports {} from {}",
            file.display(),
            tie.line,
            names.join(", "),
            other.display()
        );
    }
    let (file, _, tie) = ties[0];
    Finding {
        file: file.clone(),
        line: tie.line,
        found,
        fix: FIX.to_string(),
    }
}

fn edges(tree: &Tree) -> Edges {
    let mut edges = Edges::new();
    for (index, module) in tree.modules.iter().enumerate() {
        for mention in &module.contents.mentions {
            let Some((target, name)) = target(tree, index, mention) else {
                continue;
            };
            let other = &tree.modules[target].file;
            if *other == module.file {
                continue;
            }
            let ties = edges.entry(module.file.clone()).or_default();
            let tie = ties.entry(other.clone()).or_insert_with(|| Tie {
                line: mention.line,
                names: BTreeSet::new(),
            });
            tie.line = tie.line.min(mention.line);
            tie.names.insert(name);
        }
    }
    edges
}

/// The module that a mention makes its file import, and the name of what it takes there.
fn target(tree: &Tree, from: usize, mention: &Mention) -> Option<(usize, String)> {
    let has_children = |module| {
        tree.modules
            .iter()
            .any(|other| other.parent == Some(module))
    };
    let (target, name) = match (resolve(tree, from, mention).place, &mention.kind) {
        (Place::Item { module, name }, _) => (module, name),
        (Place::Module(module), Kind::Use(import)) if import.is_glob => (module, "*".to_string()),
        // A module with children may only be the way to one: the paths through it count.
        (Place::Module(module), Kind::Use(_)) if !has_children(module) => {
            (module, tree.modules[module].path.last()?.clone())
        }
        _ => return None,
    };
    match &mention.kind {
        Kind::Use(import) if import.is_reexport && tree.is_inside(target, from) => None,
        _ => Some((target, name)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Files;

    const NAME: &str = "adavit-gumbel";

    fn reports(sources: &[(&str, &str)]) -> Vec<String> {
        Files::of_crate(NAME, sources).findings_in_sources(check)
    }

    #[test]
    fn imports_that_point_one_way_are_right() {
        let found = reports(&[
            ("lib.rs", "mod a;\nmod b;\npub use a::A;\n"),
            ("a.rs", "use crate::b::B;\npub struct A(B);\n"),
            ("b.rs", "pub struct B;\n"),
        ]);
        assert!(found.is_empty(), "{found:?}");
    }

    #[test]
    fn two_files_that_import_each_other_are_reported_with_lines_and_names() {
        let found = reports(&[
            ("lib.rs", "mod a;\nmod b;\n"),
            ("a.rs", "use crate::b::B;\npub struct A(B);\n"),
            ("b.rs", "pub struct B;\nfn f() -> super::a::A { loop {} }\n"),
        ]);
        assert_eq!(
            found,
            [
                "crates/adavit-gumbel/src/a.rs:1: 2 files import each other in a circle\n    \
              crates/adavit-gumbel/src/a.rs:1 imports B from crates/adavit-gumbel/src/b.rs\n    \
              crates/adavit-gumbel/src/b.rs:2 imports A from crates/adavit-gumbel/src/a.rs\n    \
              move what both need into a file that imports neither, or pass it as an argument"
            ]
        );
    }

    #[test]
    fn a_circle_through_reexports_and_three_files_is_found() {
        let found = reports(&[
            ("lib.rs", "mod a;\nmod b;\nmod c;\npub use c::C;\n"),
            (
                "a.rs",
                "use crate::b;\npub struct A;\nfn f() { b::make() }\n",
            ),
            ("b.rs", "pub fn make() { let _ = crate::C; }\n"),
            ("c.rs", "pub struct C;\nimpl From<crate::a::A> for C {}\n"),
        ]);
        assert!(found[0].contains("3 files"), "{found:?}");
        assert!(found[0].contains("b.rs:1 imports C from crates/adavit-gumbel/src/c.rs"));
    }

    #[test]
    fn a_parent_that_only_declares_and_reexports_its_child_makes_no_circle() {
        let found = reports(&[
            ("lib.rs", "mod policy;\n"),
            (
                "policy/mod.rs",
                "mod block;\npub(crate) use block::Block;\npub struct Policy;\n",
            ),
            (
                "policy/block.rs",
                "use super::Policy;\npub struct Block(Policy);\n",
            ),
        ]);
        assert!(found.is_empty(), "{found:?}");
    }

    #[test]
    fn a_parent_that_uses_its_child_makes_one_by_whatever_way() {
        for used in [
            "use block::Block;\nstruct P(Block);\n",
            "struct P(block::Block);\n",
            "pub use block::Block;\nstruct P(Block);\n",
            "use self::block::*;\n",
            "fn f() { println!(\"{}\", block::one(1)) }\n",
            "fn f() { tokens!(a => block::one; 2) }\n",
            "use block::one;\nfn f() { let one = one(2); }\n",
        ] {
            let parent = format!("mod block;\npub struct Policy;\n{used}");
            let found = reports(&[
                ("lib.rs", "mod policy;\n"),
                ("policy.rs", &parent),
                (
                    "policy/block.rs",
                    "use super::Policy;\npub struct Block(Policy);\npub fn one(x: u32) {}\n",
                ),
            ]);
            assert_eq!(found.len(), 1, "{used}");
        }
    }

    #[test]
    fn a_variable_named_like_an_item_is_no_import() {
        let found = reports(&[
            (
                "lib.rs",
                "mod gate;\npub use gate::gate;\nfn f() { let gate = 1; g(gate) }\npub struct A;\n",
            ),
            ("gate.rs", "pub fn gate() -> crate::A { crate::A }\n"),
        ]);
        assert!(found.is_empty(), "{found:?}");
    }

    #[test]
    fn tests_make_no_circle() {
        let found = reports(&[
            ("lib.rs", "mod a;\nmod b;\n#[cfg(test)]\nmod more_tests;\n"),
            (
                "a.rs",
                "pub struct A;\n#[cfg(test)]\nmod tests { use crate::b::B; }\n\
                 #[cfg(test)]\nfn made() -> crate::b::B { loop {} }\n",
            ),
            ("b.rs", "pub struct B(crate::a::A);\n"),
            ("more_tests.rs", "use crate::a::A;\n"),
        ]);
        assert!(found.is_empty(), "{found:?}");
    }
}
