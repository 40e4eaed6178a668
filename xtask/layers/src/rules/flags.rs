//! No message of a library names a command-line flag.
//!
//! A library names the setting (`budget`, `data_dir`), since its callers are not only the program
//! `adavit`, which adds the flag. Every string literal in `crates/*/src` counts, except those of
//! `adavit-cli`, of doc comments and of tests.

use std::path::Path;

use crate::collect::Text;
use crate::report::{Finding, Report};
use crate::tree::Tree;

const RULE: &str = "no library's message names a command-line flag";

/// The crate that has a command line.
const BINARY: &str = "crates/adavit-cli";

/// Checks the strings of the crates.
pub(crate) fn check(trees: &[Tree]) -> Report {
    let modules = trees.iter().flat_map(|tree| &tree.modules);
    let of_libraries = modules.filter(|module| is_library(&module.file));
    let found = of_libraries.flat_map(|module| {
        let strings = module.contents.strings.iter();
        strings.filter_map(|text| finding(&module.file, text))
    });
    Report::new(RULE, found.collect())
}

fn is_library(file: &Path) -> bool {
    file.starts_with("crates") && !file.starts_with(BINARY)
}

fn finding(file: &Path, text: &Text) -> Option<Finding> {
    let flag = flag(&text.text)?;
    Some(Finding {
        file: file.to_path_buf(),
        line: text.line,
        found: format!("a string names the flag {flag}"),
        fix: "name the setting, and let adavit-cli add the flag".to_string(),
    })
}

/// The first flag that a text names: `--` and a letter, at the start, after a space or an opening
/// mark. CSS's variables, `var(--x)` and `--x: ...`, are none.
fn flag(text: &str) -> Option<&str> {
    text.match_indices("--").find_map(|(start, _)| {
        let (before, rest) = (&text[..start], &text[start..]);
        let opens = before
            .chars()
            .next_back()
            .is_none_or(|mark| mark.is_whitespace() || "`'\"([".contains(mark));
        let name = rest[2..]
            .find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '-')
            .unwrap_or(rest.len() - 2);
        let is_name = rest[2..].starts_with(|letter: char| letter.is_ascii_lowercase());
        let is_css = before.ends_with("var(") || rest[2 + name..].starts_with(": #");
        (opens && is_name && !is_css).then(|| &rest[..2 + name])
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Files;

    fn reports(name: &str, source: &str) -> Vec<String> {
        Files::of_crate(name, &[("lib.rs", source)]).findings_in_sources(check)
    }

    #[test]
    fn a_message_that_names_a_flag_is_refused() {
        for wrong in [
            "fn f() -> &'static str { \"--out is taken\" }\n",
            "fn f() { bail!(\"{}: give another by --out\", path) }\n",
            "fn f() { bail!(\"remove it or use `--out`\") }\n",
            "fn f() { told!(info; \"see (--out)\") }\n",
            "const HINT: &str = \"a \\\n    long line with --out\";\n",
            "#[derive(Error)]\nenum E { #[error(\"needs --out\")] Out }\n",
        ] {
            let found = reports("adavit-train", wrong);
            assert_eq!(found.len(), 1, "{wrong}: {found:?}");
            assert!(
                found[0].contains("a string names the flag --out"),
                "{found:?}"
            );
        }
    }

    #[test]
    fn other_strings_and_comments_are_right() {
        for right in [
            "//! The setting of `--out`.\n/// By --out.\nfn f() {} // --out\n",
            "const CSS: &str = \":root { --ink: #111 } p { color: var(--ink) }\";\n",
            "const TEXT: &str = \"a -- b, x--y, <!-- note -->, ---, --5\";\n",
            "#[cfg(test)]\nmod tests { const ARGS: &str = \"--out\"; }\n",
        ] {
            let found = reports("adavit-train", right);
            assert!(found.is_empty(), "{right}: {found:?}");
        }
    }

    #[test]
    fn the_program_may_name_its_flags() {
        let source = "const HINT: &str = \"use --out\";\n";
        assert!(reports("adavit-cli", source).is_empty());
        assert_eq!(reports("adavit-model", source).len(), 1);
    }
}
