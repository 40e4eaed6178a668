//! Takes the paths and string literals out of parsed items.
//!
//! Items under `#[cfg(test)]`, doc comments and inline modules are left out: a module has its own
//! contents. The tokens of a macro count where they are expressions separated by commas; of other
//! tokens, paths of two parts and more and literals count.

use std::collections::HashSet;

use proc_macro2::{Span, TokenStream, TokenTree};
use syn::ext::IdentExt;
use syn::punctuated::Punctuated;
use syn::visit::{self, Visit};
use syn::{Attribute, Expr, ImplItem, Item, Meta, Token, TraitItem, UseTree, Visibility};

/// What a module mentions.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    pub(crate) mentions: Vec<Mention>,
    pub(crate) strings: Vec<Text>,
}

/// A path in the source, as it is written.
#[derive(Debug, Clone)]
pub(crate) struct Mention {
    pub(crate) path: Vec<String>,
    pub(crate) line: usize,
    pub(crate) kind: Kind,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    Type,
    Value,
    Use(Import),
}

/// How a `use` imports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Import {
    /// The name that it gives; `None` for `*` and `_`.
    pub(crate) name: Option<String>,
    pub(crate) is_glob: bool,
    /// It has a visibility of its own: `pub`, `pub(crate)`, ...
    pub(crate) is_reexport: bool,
}

/// A string literal.
#[derive(Debug, Clone)]
pub(crate) struct Text {
    pub(crate) text: String,
    pub(crate) line: usize,
}

/// Reads the items of one module.
pub(crate) fn contents(items: &[Item]) -> Contents {
    let mut collector = Collector::default();
    for item in items {
        collector.visit_item(item);
    }
    collector.contents
}

/// Whether an item is compiled only for tests.
pub(crate) fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("test")
            || match &attribute.meta {
                Meta::List(list) if list.path.is_ident("cfg") => asks_for_test(&list.tokens),
                _ => false,
            }
    })
}

/// Whether `test` stands in a condition, and not under `not` or `any`.
fn asks_for_test(condition: &TokenStream) -> bool {
    let mut holds = true;
    condition.clone().into_iter().any(|token| match token {
        TokenTree::Ident(word) => {
            holds = word != "not" && word != "any";
            word == "test"
        }
        TokenTree::Group(group) => holds && asks_for_test(&group.stream()),
        _ => false,
    })
}

#[derive(Debug, Default)]
struct Collector {
    contents: Contents,
    /// Names that patterns of the functions around bind: a variable hides an item.
    variables: Vec<HashSet<String>>,
}

impl Collector {
    fn mention(&mut self, path: Vec<String>, line: usize, kind: Kind) {
        if let ([name], Kind::Value) = (path.as_slice(), &kind)
            && self.variables.iter().any(|bound| bound.contains(name))
        {
            return;
        }
        self.contents.mentions.push(Mention { path, line, kind });
    }

    fn path(&mut self, path: &syn::Path, kind: Kind) {
        if let (None, Some(first)) = (&path.leading_colon, path.segments.first()) {
            let names = path.segments.iter().map(|part| text(&part.ident)).collect();
            self.mention(names, line(first.ident.span()), kind);
        }
        for part in &path.segments {
            self.visit_path_arguments(&part.arguments);
        }
    }

    /// Paths and literals of tokens that are no expressions.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut first = 0;
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(word) => {
                    if colons != 2 || path.is_empty() {
                        self.end_path(&mut path, first);
                        first = line(word.span());
                    }
                    path.push(text(&word));
                    colons = 0;
                }
                TokenTree::Punct(mark) if mark.as_char() == ':' => colons += 1,
                other => {
                    self.end_path(&mut path, first);
                    colons = 0;
                    match other {
                        TokenTree::Group(group) => self.tokens(group.stream()),
                        TokenTree::Literal(literal) => {
                            if let syn::Lit::Str(string) = syn::Lit::new(literal) {
                                self.visit_lit_str(&string);
                            }
                        }
                        _ => {}
                    }
                }
            }
        }
        self.end_path(&mut path, first);
    }

    fn end_path(&mut self, path: &mut Vec<String>, line: usize) {
        let path = std::mem::take(path);
        if path.len() > 1 {
            self.mention(path, line, Kind::Value);
        }
    }

    fn use_tree(&mut self, tree: &UseTree, path: &mut Vec<String>, is_reexport: bool) {
        let (last, name, span) = match tree {
            UseTree::Path(inner) => {
                path.push(text(&inner.ident));
                self.use_tree(&inner.tree, path, is_reexport);
                path.pop();
                return;
            }
            UseTree::Group(group) => {
                for inner in &group.items {
                    self.use_tree(inner, path, is_reexport);
                }
                return;
            }
            UseTree::Name(name) => (
                Some(&name.ident),
                Some(text(&name.ident)),
                name.ident.span(),
            ),
            UseTree::Rename(name) => (
                Some(&name.ident),
                Some(text(&name.rename)),
                name.ident.span(),
            ),
            UseTree::Glob(glob) => (None, None, glob.star_token.span),
        };
        let mut whole = path.clone();
        whole.extend(last.map(text).filter(|last| last != "self"));
        let import = Import {
            name: match name.as_deref() {
                Some("_") => None,
                Some("self") => path.last().cloned(),
                _ => name,
            },
            is_glob: last.is_none(),
            is_reexport,
        };
        self.mention(whole, line(span), Kind::Use(import));
    }
}

impl<'ast> Visit<'ast> for Collector {
    fn visit_item(&mut self, item: &'ast Item) {
        if matches!(item, Item::Mod(_)) || attributes(item).is_some_and(is_test) {
            return;
        }
        visit::visit_item(self, item);
    }

    fn visit_impl_item(&mut self, item: &'ast ImplItem) {
        let attributes = match item {
            ImplItem::Const(item) => &item.attrs,
            ImplItem::Fn(item) => &item.attrs,
            ImplItem::Type(item) => &item.attrs,
            ImplItem::Macro(item) => &item.attrs,
            _ => return,
        };
        if !is_test(attributes) {
            visit::visit_impl_item(self, item);
        }
    }

    fn visit_trait_item(&mut self, item: &'ast TraitItem) {
        match item {
            TraitItem::Fn(function) if is_test(&function.attrs) => {}
            _ => visit::visit_trait_item(self, item),
        }
    }

    fn visit_local(&mut self, local: &'ast syn::Local) {
        if !is_test(&local.attrs) {
            visit::visit_local(self, local);
        }
    }

    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        self.variables
            .push(variables(|names| names.visit_item_fn(function)));
        visit::visit_item_fn(self, function);
        self.variables.pop();
    }

    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        self.variables
            .push(variables(|names| names.visit_impl_item_fn(function)));
        visit::visit_impl_item_fn(self, function);
        self.variables.pop();
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if item.leading_colon.is_none() {
            let is_reexport = !matches!(item.vis, Visibility::Inherited);
            self.use_tree(&item.tree, &mut Vec::new(), is_reexport);
        }
    }

    fn visit_expr_path(&mut self, path: &'ast syn::ExprPath) {
        if let Some(outer) = &path.qself {
            self.visit_qself(outer);
        }
        self.path(&path.path, Kind::Value);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.path(path, Kind::Type);
    }

    /// `pub(in path)` is no use of what the path names.
    fn visit_vis_restricted(&mut self, _: &'ast syn::VisRestricted) {}

    fn visit_macro(&mut self, mac: &'ast syn::Macro) {
        self.path(&mac.path, Kind::Value);
        let parse = Punctuated::<Expr, Token![,]>::parse_terminated;
        match mac.parse_body_with(parse) {
            Ok(expressions) => {
                for expression in &expressions {
                    self.visit_expr(expression);
                }
            }
            Err(_) => self.tokens(mac.tokens.clone()),
        }
    }

    /// Attributes hold messages (thiserror), and paths, in strings too (serde).
    fn visit_attribute(&mut self, attribute: &'ast Attribute) {
        let Meta::List(list) = &attribute.meta else {
            return;
        };
        let before = self.contents.strings.len();
        self.tokens(list.tokens.clone());
        let strings = &self.contents.strings[before..];
        let paths: Vec<(syn::Path, usize)> = strings
            .iter()
            .filter_map(|string| Some((syn::parse_str(&string.text).ok()?, string.line)))
            .collect();
        for (path, line) in paths {
            if path.segments.len() > 1 {
                let names = path.segments.iter().map(|part| text(&part.ident)).collect();
                self.mention(names, line, Kind::Value);
            }
        }
    }

    fn visit_lit_str(&mut self, literal: &'ast syn::LitStr) {
        self.contents.strings.push(Text {
            text: literal.value(),
            line: line(literal.span()),
        });
    }
}

/// The names that the patterns of a function bind.
fn variables(visit: impl FnOnce(&mut Names)) -> HashSet<String> {
    let mut names = Names::default();
    visit(&mut names);
    names.0
}

#[derive(Debug, Default)]
struct Names(HashSet<String>);

impl<'ast> Visit<'ast> for Names {
    fn visit_pat_ident(&mut self, pattern: &'ast syn::PatIdent) {
        let name = text(&pattern.ident);
        // A pattern of one name in capitals is a constant.
        if name.starts_with(char::is_lowercase) {
            self.0.insert(name);
        }
        visit::visit_pat_ident(self, pattern);
    }
}

/// An identifier without `r#`.
pub(crate) fn text(ident: &syn::Ident) -> String {
    ident.unraw().to_string()
}

fn line(span: Span) -> usize {
    span.start().line
}

fn attributes(item: &Item) -> Option<&[Attribute]> {
    Some(match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Macro(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Static(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Union(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(source: &str) -> Vec<String> {
        let file = syn::parse_file(source).unwrap();
        let mentions = contents(&file.items).mentions;
        mentions
            .iter()
            .map(|mention| mention.path.join("::"))
            .collect()
    }

    #[test]
    fn only_what_is_compiled_for_tests_alone_is_left_out() {
        assert!(paths("#[cfg(test)] use a::A;").is_empty());
        assert!(paths("#[cfg(all(unix, test))] use a::A;").is_empty());
        assert_eq!(paths("#[cfg(not(test))] use a::A;"), ["a::A"]);
        assert_eq!(paths("#[cfg(any(test, unix))] use a::A;"), ["a::A"]);
        assert_eq!(paths("#[cfg(feature = \"test\")] use a::A;"), ["a::A"]);
    }

    #[test]
    fn every_form_of_use_has_its_path() {
        let source = "use a::{self, b::*, c::C as D, d::{E, F as _}};";
        assert_eq!(
            paths(source),
            ["a", "a::b", "a::c::C", "a::d::E", "a::d::F"]
        );
    }

    #[test]
    fn macros_have_paths_and_variables_have_none() {
        assert_eq!(
            paths("m! { a::A => b; [c::d::E] }"),
            ["m", "a::A", "c::d::E"]
        );
        assert_eq!(paths("fn f(x: T) { g(x, y) }"), ["T", "g", "y"]);
    }
}
