//! From the paths of pictures to parts and classes: the rules of folders, on disk or in an archive.
//!
//! ```text
//! train/CLASS/x.jpg          train/CLASS/images/x.JPEG      CLASS/x.jpg
//! val/CLASS/x.jpg            val/images/x.JPEG, val/val_annotations.txt
//! ```

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use crate::error::{Error, Result};
use crate::formats::left_out::{LeftOut, Reason};
use crate::formats::options::Faulty;
use crate::formats::part_name::PartName;
use crate::formats::store::Labels;

/// Files that say the labels of the pictures of their folder, besides `PART_annotations.txt`.
const ANNOTATIONS: [&str; 6] = [
    "annotations.txt",
    "annotations.csv",
    "labels.csv",
    "labels.txt",
    "val_annotations.txt",
    "test_annotations.txt",
];

/// The paths of a folder or an archive, relative to it, with `/` between names.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    /// Pictures, sorted.
    pub(crate) pictures: Vec<String>,
    /// Other files.
    pub(crate) others: Vec<String>,
    /// All folders.
    pub(crate) folders: Vec<String>,
}

/// The pictures of a part with their classes.
#[derive(Debug)]
pub(crate) struct Assigned {
    pub(crate) part: Option<PartName>,
    /// Places in [`Tree::pictures`], ascending.
    pub(crate) pictures: Vec<u32>,
    /// The class of each.
    pub(crate) class_of: Vec<u32>,
    pub(crate) classes: Vec<String>,
    pub(crate) empty_classes: Vec<String>,
}

/// What the rules work on.
pub(crate) struct Rules<'a> {
    pub(crate) root: &'a Path,
    pub(crate) tree: &'a Tree,
    /// Reads one of [`Tree::others`].
    pub(crate) read: &'a dyn Fn(&str) -> Result<String>,
    pub(crate) faulty: Faulty,
}

impl Rules<'_> {
    /// Returns the parts with at least one labelled picture.
    ///
    /// # Errors
    /// If there is none, two folders are the same part, or an annotation file is wrong.
    pub(crate) fn assign(&self, left_out: &mut LeftOut) -> Result<Vec<Assigned>> {
        let parts = self.part_folders()?;
        let mut found = Vec::new();
        if parts.is_empty() {
            found.push(self.part(None, "", left_out)?);
            self.check_not_above(&found[0])?;
        }
        for (part, folder) in &parts {
            found.push(self.part(Some(*part), &format!("{folder}/"), left_out)?);
        }
        if !parts.is_empty() {
            let inside = |path: &str| parts.values().any(|folder| inside(path, folder));
            let outside = self.tree.pictures.iter().filter(|path| !inside(path));
            outside.for_each(|path| left_out.add(Reason::OutsideParts, path));
            self.drop_unlabelled(&mut found, left_out);
        }
        found.retain(|part| !part.pictures.is_empty());
        if found.is_empty() {
            let n = self.tree.pictures.len();
            return Err(self.fail(format!(
                "{n} pictures, but none in the folder of a class: expected CLASS/x.jpg, or \
                 train/CLASS/x.jpg and val/CLASS/x.jpg"
            )));
        }
        Ok(found)
    }

    fn fail(&self, message: String) -> Error {
        Error::data(self.root, message)
    }

    /// The folders that are parts. A folder called `train` next to folders of classes is a class, if
    /// its pictures lie directly in it.
    fn part_folders(&self) -> Result<BTreeMap<PartName, &str>> {
        let tops: BTreeSet<&str> = self.tree.folders.iter().map(|path| first(path)).collect();
        let all_parts = tops.iter().all(|top| PartName::of(top).is_some());
        let mut parts = BTreeMap::new();
        for top in tops {
            let Some(part) = PartName::of(top) else {
                continue;
            };
            let deep = |path: &String| inside(path, top) && path[top.len() + 1..].contains('/');
            let is_part = all_parts
                || self.tree.pictures.iter().any(deep)
                || self.annotation(part.name(), &format!("{top}/")).is_some();
            if !is_part {
                continue;
            }
            if let Some(other) = parts.insert(part, top) {
                return Err(self.fail(format!(
                    "folders {other} and {top} are the same part; remove or rename one"
                )));
            }
        }
        Ok(parts)
    }

    /// The annotation file of a folder, whose path ends in `/`.
    fn annotation(&self, part: &str, prefix: &str) -> Option<&String> {
        let own = format!("{part}_annotations.txt");
        let is_one = |path: &String| {
            let name = path.strip_prefix(prefix);
            name.is_some_and(|name| name == own || ANNOTATIONS.contains(&name))
        };
        self.tree.others.iter().find(|path| is_one(path))
    }

    fn part(
        &self,
        part: Option<PartName>,
        prefix: &str,
        left_out: &mut LeftOut,
    ) -> Result<Assigned> {
        let pictures = &self.tree.pictures;
        let start = pictures.partition_point(|path| path.as_str() < prefix);
        let inside = pictures[start..].iter().zip(start as u32..);
        let inside: Vec<(&str, u32)> = inside
            .map_while(|(path, i)| Some((path.strip_prefix(prefix)?, i)))
            .collect();
        let folders = inside.iter().filter_map(|(path, _)| path.split_once('/'));
        let folders: BTreeSet<&str> = folders.map(|(folder, _)| folder).collect();
        // Next to folders of classes, a file called `labels.txt` says something else.
        let annotation = match folders.len() {
            0 | 1 => self.annotation(part.map_or("", PartName::name), prefix),
            _ => None,
        };
        let list = annotation.map(|file| self.annotations(file)).transpose()?;
        let mut labels = Labels::default();
        let mut found = Assigned {
            part,
            pictures: Vec::new(),
            class_of: Vec::new(),
            classes: Vec::new(),
            empty_classes: Vec::new(),
        };
        for (path, i) in &inside {
            let class = match &list {
                Some(list) => list.class(path),
                None => path.split_once('/').map(|(class, _)| class),
            };
            match class {
                Some(class) => {
                    found.class_of.push(labels.place(class));
                    found.pictures.push(*i);
                }
                None => left_out.add(Reason::NoLabel, &format!("{prefix}{path}")),
            }
        }
        found.classes = labels.classes;
        match (&list, annotation) {
            (Some(list), Some(file)) => self.check_named(list, file, &inside, left_out)?,
            _ => found.empty_classes = self.empty_classes(prefix, &found.classes, left_out),
        }
        Ok(found)
    }

    fn annotations(&self, file: &str) -> Result<Annotations> {
        let text = (self.read)(file)?;
        Annotations::parse(&text).map_err(|message| Error::data(&self.root.join(file), message))
    }

    /// Folders of `prefix` that hold no picture.
    fn empty_classes(
        &self,
        prefix: &str,
        classes: &[String],
        left_out: &mut LeftOut,
    ) -> Vec<String> {
        let with: BTreeSet<&str> = classes.iter().map(String::as_str).collect();
        let folders = self.tree.folders.iter();
        let names = folders.filter_map(|path| path.strip_prefix(prefix).map(first));
        let empty: BTreeSet<&str> = names.filter(|name| !with.contains(name)).collect();
        for name in &empty {
            left_out.add(Reason::EmptyClass, &format!("{prefix}{name}"));
        }
        empty.into_iter().map(str::to_owned).collect()
    }

    /// Every picture that an annotation file names is there.
    fn check_named(
        &self,
        list: &Annotations,
        file: &str,
        inside: &[(&str, u32)],
        left_out: &mut LeftOut,
    ) -> Result<()> {
        let names: BTreeSet<&str> = inside
            .iter()
            .flat_map(|(path, _)| [*path, last(path)])
            .collect();
        for (name, row) in &list.rows {
            if names.contains(name.as_str()) {
                continue;
            }
            match self.faulty {
                Faulty::LeaveOut => left_out.add(Reason::Missing, name),
                Faulty::Refuse => {
                    return Err(Error::data(
                        &self.root.join(file),
                        format!("row {row}: there is no picture {name}; copy the data again"),
                    ));
                }
            }
        }
        Ok(())
    }

    /// A part whose only folder is `images`, unlike the others, has no labels.
    fn drop_unlabelled(&self, found: &mut [Assigned], left_out: &mut LeftOut) {
        let is_plain = |part: &Assigned| part.classes == ["images"];
        if found
            .iter()
            .all(|part| is_plain(part) || part.pictures.is_empty())
        {
            return;
        }
        for part in found.iter_mut().filter(|part| is_plain(part)) {
            for i in part.pictures.drain(..) {
                left_out.add(Reason::NoLabel, &self.tree.pictures[i as usize]);
            }
            part.class_of.clear();
            part.classes.clear();
        }
    }

    /// The folder is not the parent of the data set.
    fn check_not_above(&self, found: &Assigned) -> Result<()> {
        let [class] = found.classes.as_slice() else {
            return Ok(());
        };
        let mut below = self.tree.folders.iter().filter(|path| inside(path, class));
        match below.find(|path| PartName::of(first(&path[class.len() + 1..])).is_some()) {
            Some(part) => Err(self.fail(format!(
                "the only folder is {class}, which holds {part}; open {} itself",
                self.root.join(class).display()
            ))),
            None => Ok(()),
        }
    }
}

fn first(path: &str) -> &str {
    path.split_once('/').map_or(path, |(first, _)| first)
}

fn last(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, last)| last)
}

/// Whether a path lies in a folder.
fn inside(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder)
        .is_some_and(|rest| rest.starts_with('/'))
}

/// The labels of an annotation file.
#[derive(Debug)]
struct Annotations {
    /// By the name in the file.
    classes: HashMap<String, String>,
    /// Names with their rows.
    rows: Vec<(String, usize)>,
}

impl Annotations {
    /// Reads lines of `file TAB class TAB ...` or `file,class`, with or without a header.
    fn parse(text: &str) -> Result<Self, String> {
        let (mut classes, mut rows) = (HashMap::new(), Vec::new());
        for (row, line) in (1..).zip(text.lines()) {
            if line.trim().is_empty() {
                continue;
            }
            let separator = if line.contains('\t') { '\t' } else { ',' };
            let mut fields = line.split(separator).map(str::trim);
            let (Some(file), Some(class)) = (fields.next(), fields.next()) else {
                return Err(format!(
                    "row {row}: expected a file and its class, separated by a tab or a comma, found {line:?}"
                ));
            };
            if row == 1 && ["file", "filename", "file_name", "path", "image"].contains(&file) {
                continue;
            }
            if file.is_empty() || class.is_empty() {
                return Err(format!(
                    "row {row}: expected a file and its class, found {line:?}"
                ));
            }
            let other = classes.insert(file.to_owned(), class.to_owned());
            if other.is_some_and(|other| other != class) {
                return Err(format!("row {row}: {file} has two classes; remove one"));
            }
            rows.push((file.to_owned(), row));
        }
        Ok(Self { classes, rows })
    }

    fn class(&self, path: &str) -> Option<&str> {
        let found = self
            .classes
            .get(path)
            .or_else(|| self.classes.get(last(path)));
        found.map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[&str]) -> Tree {
        let mut tree = Tree::default();
        let mut folders = BTreeSet::new();
        for file in files {
            for (at, _) in file.match_indices('/') {
                folders.insert(file[..at].to_owned());
            }
            match file.rsplit_once('.').map(|(_, ending)| ending) {
                Some("jpg") => tree.pictures.push((*file).to_owned()),
                Some("") => {}
                _ => tree.others.push((*file).to_owned()),
            }
        }
        tree.pictures.sort();
        tree.folders = folders.into_iter().collect();
        tree
    }

    fn assign(files: &[&str], text: &str) -> Result<(Vec<Assigned>, LeftOut), String> {
        let rules = Rules {
            root: Path::new("data"),
            tree: &tree(files),
            read: &|_| Ok(text.to_owned()),
            faulty: Faulty::Refuse,
        };
        let mut left_out = LeftOut::default();
        let found = rules
            .assign(&mut left_out)
            .map_err(|error| error.to_string())?;
        Ok((found, left_out))
    }

    #[test]
    fn annotations_label_a_flat_part_and_an_unlabelled_part_is_counted() {
        let files = [
            "train/n1/images/a.jpg",
            "train/n2/images/b.jpg",
            "val/images/v0.jpg",
            "val/images/v1.jpg",
            "val/val_annotations.txt",
            "test/images/t.jpg",
        ];
        let (found, left_out) = assign(&files, "v0.jpg\tn2\t0\t0\nv1.jpg\tn1\t0\t0\n").unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].classes, ["n1", "n2"]);
        assert_eq!(found[1].part, Some(PartName::Val));
        assert_eq!(
            (&found[1].classes[..], &found[1].class_of[..]),
            (&["n2".into(), "n1".into()][..], &[0, 1][..])
        );
        assert_eq!(left_out.count(Reason::NoLabel), 1);
        let error = assign(&files, "v0.jpg\tn2\nv9.jpg\tn1\n").unwrap_err();
        assert!(
            error.contains("row 2") && error.contains("v9.jpg"),
            "{error}"
        );
        let error = assign(&files, "v0.jpg\n").unwrap_err();
        assert!(error.contains("row 1"), "{error}");
    }

    #[test]
    fn a_class_may_be_called_train() {
        let (found, _) = assign(&["bus/a.jpg", "car/b.jpg", "train/c.jpg"], "").unwrap();
        assert_eq!(found[0].part, None);
        assert_eq!(found[0].classes, ["bus", "car", "train"]);
    }

    #[test]
    fn pictures_next_to_the_parts_are_counted() {
        let files = [
            "train/a/1.jpg",
            "val/a/2.jpg",
            "x.jpg",
            "more/y.jpg",
            "train/z.jpg",
        ];
        let (found, left_out) = assign(&files, "").unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(left_out.count(Reason::OutsideParts), 2);
        assert_eq!(left_out.count(Reason::NoLabel), 1);
    }

    #[test]
    fn two_folders_of_one_part_and_the_parent_folder_are_refused() {
        let error = assign(&["val/a/1.jpg", "validation/a/2.jpg"], "").unwrap_err();
        assert!(error.contains("val and validation"), "{error}");
        let error = assign(&["set/train/a/1.jpg", "set/val/a/2.jpg"], "").unwrap_err();
        assert!(error.contains("open data/set itself"), "{error}");
        assert!(
            assign(&["a.jpg"], "")
                .unwrap_err()
                .contains("none in the folder of a class")
        );
    }
}
