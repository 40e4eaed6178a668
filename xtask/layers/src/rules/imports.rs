//! Imports name the defining module.
//!
//! A `use` or a path in a crate may not take an item from a module that only imports it itself: not
//! from the crate's root, which re-exports for other crates, nor from a module that re-exports its
//! children's items, nor by `super::X` what the parent imports. A module that has to be seen for
//! that is `pub(crate) mod`. Not refused: a re-export of what lies below the module itself (`lib.rs`
//! takes from `policy/mod.rs` what that takes from `policy/block.rs`), globs, and what only tests
//! see.

use crate::collect::{Kind, Mention};
use crate::report::{Finding, Report};
use crate::resolve::{Place, resolve};
use crate::tree::Tree;

const RULE: &str = "imports name the defining module";

/// Checks the files of each target.
pub(crate) fn check(trees: &[Tree]) -> Report {
    let found = trees.iter().flat_map(|tree| {
        tree.modules
            .iter()
            .enumerate()
            .flat_map(move |(index, module)| {
                let mentions = module.contents.mentions.iter();
                mentions.filter_map(move |mention| finding(tree, index, mention))
            })
    });
    Report::new(RULE, found.collect())
}

fn finding(tree: &Tree, from: usize, mention: &Mention) -> Option<Finding> {
    let resolved = resolve(tree, from, mention);
    let facade = resolved.facade?;
    let file = &tree.modules[from].file;
    let is_facade_of_own = match &mention.kind {
        Kind::Use(import) => import.is_reexport && tree.is_inside(facade, from),
        Kind::Type | Kind::Value => false,
    };
    if is_facade_of_own || tree.modules[facade].file == *file {
        return None;
    }
    let source = match resolved.place {
        Place::Module(module) => tree.name(module),
        Place::Item { module, name } => format!("{}::{name}", tree.name(module)),
        Place::Elsewhere(path) => path.join("::"),
    };
    let facade = &tree.modules[facade].file;
    Some(Finding {
        file: file.clone(),
        line: mention.line,
        found: format!(
            "{} is imported in {}, not defined",
            mention.path.join("::"),
            facade.display()
        ),
        fix: format!("take it from where it is defined: {source}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Files;

    fn reports(sources: &[(&str, &str)]) -> Vec<String> {
        Files::of_crate("adavit-gumbel", sources).findings_in_sources(check)
    }

    /// A root that re-exports, a folder that re-exports, and one file that uses them.
    fn reports_of(user: &str) -> Vec<String> {
        reports(&[
            (
                "lib.rs",
                "mod error;\nmod policy;\nmod user;\npub use error::Error;\n\
                 pub use policy::Block;\npub use candle_core::Tensor;\n",
            ),
            ("error.rs", "pub struct Error;\n"),
            (
                "policy/mod.rs",
                "pub(crate) mod block;\npub use block::Block;\n",
            ),
            ("policy/block.rs", "pub struct Block;\n"),
            ("user.rs", user),
        ])
    }

    #[test]
    fn an_import_from_the_defining_module_is_right() {
        for right in [
            "use crate::error::Error;\n",
            "use super::policy::block::{self, Block as B};\nfn f(b: block::Block) {}\n",
            "use candle_core::Tensor;\nfn f(t: Tensor) -> Result<(), String> { loop {} }\n",
            "#[cfg(test)]\nmod tests { use crate::Error; }\n",
        ] {
            let found = reports_of(right);
            assert!(found.is_empty(), "{right}: {found:?}");
        }
    }

    #[test]
    fn an_import_of_a_reexport_is_refused_and_its_source_is_named() {
        for (wrong, source) in [
            ("use crate::Error;\n", "crate::error::Error"),
            ("use super::{Error as E};\n", "crate::error::Error"),
            (
                "fn f() -> crate::Error { loop {} }\n",
                "crate::error::Error",
            ),
            ("use crate::Block;\n", "crate::policy::block::Block"),
            ("use crate::policy::Block;\n", "crate::policy::block::Block"),
            (
                "pub use crate::policy::Block;\n",
                "crate::policy::block::Block",
            ),
            (
                "use crate::policy;\nfn f(b: policy::Block) {}\n",
                "crate::policy::block::Block",
            ),
            ("use crate::Tensor;\n", "candle_core::Tensor"),
            (
                "#[serde(with = \"crate::policy::Block\")]\nstruct S;\n",
                "crate::policy::block::Block",
            ),
            (
                "fn f() { assert!(matches!(g(), crate::Error)) }\n",
                "crate::error::Error",
            ),
        ] {
            let found = reports_of(wrong);
            assert_eq!(found.len(), 1, "{wrong}: {found:?}");
            assert!(
                found[0].ends_with(&format!("is defined: {source}")),
                "{found:?}"
            );
            assert!(
                found[0].starts_with("crates/adavit-gumbel/src/user.rs:"),
                "{found:?}"
            );
        }
    }

    #[test]
    fn what_the_parent_only_imports_is_refused() {
        let found = reports(&[
            ("lib.rs", "mod a;\nmod b;\n"),
            ("a.rs", "mod inner;\nuse crate::b::B;\nfn f(b: B) {}\n"),
            ("a/inner.rs", "use super::B;\n"),
            ("b.rs", "pub struct B;\n"),
        ]);
        assert_eq!(found.len(), 1, "{found:?}");
    }

    #[test]
    fn a_module_and_a_function_of_one_name_are_two() {
        let found = reports(&[
            ("lib.rs", "mod gate;\nmod user;\npub use gate::gate;\n"),
            ("gate.rs", "pub struct Gate;\npub fn gate() {}\n"),
            (
                "user.rs",
                "use crate::gate;\nuse crate::gate::Gate;\nfn f() { gate::gate() }\n",
            ),
        ]);
        assert!(found.is_empty(), "{found:?}");
    }
}
