//! The modules of one target: their files, what they define and what they mention.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use syn::{Attribute, Expr, Item, ItemMod, Lit, Meta};

use crate::collect::{self, Contents, Kind};
use crate::workspace::{Workspace, read};

/// A library, a program, a bench or an example. Module 0 is its root.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    pub(crate) modules: Vec<Module>,
}

/// One module, in a file of its own or inline; modules for tests are left out.
#[derive(Debug)]
pub(crate) struct Module {
    /// Its names below the root.
    pub(crate) path: Vec<String>,
    pub(crate) parent: Option<usize>,
    /// Relative to the workspace's root.
    pub(crate) file: PathBuf,
    pub(crate) names: HashMap<String, Vec<Binding>>,
    /// Paths of `use path::*`.
    pub(crate) globs: Vec<Vec<String>>,
    pub(crate) contents: Contents,
}

/// What a name stands for in a module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Binding {
    Module(usize),
    Type,
    Value,
    /// A macro, or a struct that is also a function.
    Both,
    Import(Vec<String>),
}

impl Tree {
    /// Reads the target that begins with the file `target`, relative to the workspace's root.
    pub(crate) fn read(workspace: &Workspace, target: &Path) -> Result<Self> {
        let mut tree = Self::default();
        let folder = target.parent().context("a target's folder")?.to_path_buf();
        let place = Place {
            path: Vec::new(),
            parent: None,
            file: target.to_path_buf(),
            folder,
        };
        tree.add_file(&workspace.root, &place)?;
        Ok(tree)
    }

    /// Whether `inner` is `outer` or lies below it.
    pub(crate) fn is_inside(&self, inner: usize, outer: usize) -> bool {
        self.modules[inner]
            .path
            .starts_with(&self.modules[outer].path)
    }

    /// A module's path as code of the same target names it.
    pub(crate) fn name(&self, module: usize) -> String {
        let mut name = String::from("crate");
        for part in &self.modules[module].path {
            name.push_str("::");
            name.push_str(part);
        }
        name
    }

    fn add_file(&mut self, root: &Path, place: &Place) -> Result<usize> {
        let text = read(&root.join(&place.file))?;
        let file =
            syn::parse_file(&text).with_context(|| format!("parsing {}", place.file.display()))?;
        self.add(root, place, &file.items)
    }

    fn add(&mut self, root: &Path, place: &Place, items: &[Item]) -> Result<usize> {
        let index = self.modules.len();
        self.modules.push(Module {
            path: place.path.clone(),
            parent: place.parent,
            file: place.file.clone(),
            names: definitions(items),
            globs: Vec::new(),
            contents: collect::contents(items),
        });
        self.modules[index].add_imports();
        for item in items {
            if let Item::Mod(module) = item
                && !collect::is_test(&module.attrs)
            {
                let child = self.add_child(root, place, index, module)?;
                self.modules[index].bind(&collect::text(&module.ident), Binding::Module(child));
            }
        }
        Ok(index)
    }

    fn add_child(
        &mut self,
        root: &Path,
        outer: &Place,
        parent: usize,
        module: &ItemMod,
    ) -> Result<usize> {
        let name = collect::text(&module.ident);
        let mut path = outer.path.clone();
        path.push(name.clone());
        let folder = outer.folder.join(&name);
        let parent = Some(parent);
        if let Some((_, items)) = &module.content {
            let file = outer.file.clone();
            let place = Place {
                path,
                parent,
                file,
                folder,
            };
            return self.add(root, &place, items);
        }
        let beside = outer.folder.join(format!("{name}.rs"));
        let (file, folder) = match named_file(&module.attrs) {
            Some(named) => {
                let file = outer.file.with_file_name(named);
                let folder = file.parent().unwrap_or(&outer.folder).to_path_buf();
                (file, folder)
            }
            None if root.join(&beside).is_file() => (beside, folder),
            None => (folder.join("mod.rs"), folder),
        };
        if !root.join(&file).is_file() {
            bail!(
                "{}: no file of its module {name} found",
                outer.file.display()
            );
        }
        let place = Place {
            path,
            parent,
            file,
            folder,
        };
        self.add_file(root, &place)
    }
}

impl Module {
    fn bind(&mut self, name: &str, binding: Binding) {
        self.names
            .entry(name.to_string())
            .or_default()
            .push(binding);
    }

    /// Imports inside functions count for the whole module: it is the same file.
    fn add_imports(&mut self) {
        let mentions = std::mem::take(&mut self.contents.mentions);
        for mention in &mentions {
            if let Kind::Use(import) = &mention.kind {
                if let Some(name) = &import.name {
                    self.bind(name, Binding::Import(mention.path.clone()));
                } else if import.is_glob {
                    self.globs.push(mention.path.clone());
                }
            }
        }
        self.contents.mentions = mentions;
    }
}

/// Where a module lies.
#[derive(Debug)]
struct Place {
    path: Vec<String>,
    parent: Option<usize>,
    file: PathBuf,
    /// The folder of the files of its children.
    folder: PathBuf,
}

/// The file that `#[path = "..."]` names.
fn named_file(attributes: &[Attribute]) -> Option<String> {
    attributes
        .iter()
        .find_map(|attribute| match &attribute.meta {
            Meta::NameValue(pair) if pair.path.is_ident("path") => match &pair.value {
                Expr::Lit(literal) => match &literal.lit {
                    Lit::Str(file) => Some(file.value()),
                    _ => None,
                },
                _ => None,
            },
            _ => None,
        })
}

fn definitions(items: &[Item]) -> HashMap<String, Vec<Binding>> {
    let mut names: HashMap<String, Vec<Binding>> = HashMap::new();
    for item in items {
        let (ident, binding) = match item {
            Item::Const(item) => (&item.ident, Binding::Value),
            Item::Enum(item) => (&item.ident, Binding::Type),
            Item::Fn(item) => (&item.sig.ident, Binding::Value),
            Item::Static(item) => (&item.ident, Binding::Value),
            Item::Struct(item) => (&item.ident, Binding::Both),
            Item::Trait(item) => (&item.ident, Binding::Type),
            Item::Type(item) => (&item.ident, Binding::Type),
            Item::Union(item) => (&item.ident, Binding::Type),
            Item::Macro(item) => match &item.ident {
                Some(ident) => (ident, Binding::Both),
                None => continue,
            },
            _ => continue,
        };
        names.entry(collect::text(ident)).or_default().push(binding);
    }
    names
}
