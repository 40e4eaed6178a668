//! Pictures in tar archives: WebDataset's naming, or folders of classes.
//!
//! ```text
//! train-000000.tar           train-000000.tar
//!   000017.jpg                 cat/1.jpg
//!   000017.cls    "3"          dog/2.jpg
//! ```
//!
//! One pass over the headers finds where each picture begins; a picture is then read by its place.
//! Nothing is ever unpacked.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

use rayon::prelude::*;

use crate::decoding::endings::{Ending, ending};
use crate::error::{Error, Result};
use crate::formats::folders::{Rules, Tree};
use crate::formats::left_out::{LeftOut, Reason};
use crate::formats::options::{Faulty, OpenOptions};
use crate::formats::part_name::PartName;
use crate::formats::store::{Labels, Listed, RawPart, names_of, read_text};
use crate::formats::tar_index::{Index, MOST_TEXT, Member, Members, index, key, read_member};

/// Files that name the classes, in the archives' folder or in an archive.
pub(crate) const NAME_FILES: [&str; 2] = ["classnames.txt", "classes.txt"];

/// Lists the archives of one data set.
///
/// # Errors
/// If an archive is damaged, a name leads outside, a picture has no label or a name occurs twice, and
/// `options` refuses it.
pub(crate) fn open(folder: &Path, shards: &[PathBuf], options: &OpenOptions) -> Result<Listed> {
    let indices: Vec<Index> = (0..shards.len())
        .into_par_iter()
        .map(|shard| index(&shards[shard], shard as u32))
        .collect();
    let mut left_out = LeftOut::default();
    let mut members = Vec::new();
    for (index, shard) in indices.into_iter().zip(shards) {
        for (reason, message) in index.faults {
            if options.faulty == Faulty::Refuse {
                return Err(Error::data(shard, message));
            }
            left_out.add(reason, &format!("{}: {message}", shard.display()));
        }
        for (reason, name) in index.left_out {
            left_out.add(reason, &format!("{}: {name}", shard.display()));
        }
        members.extend(index.members);
    }
    let mut archive = Archive {
        folder,
        shards,
        members,
        options,
        left_out,
    };
    let class_names = archive.class_names()?;
    let carrier = if archive.is_labelled_by_key() {
        "labels"
    } else {
        "folders"
    };
    let parts = archive.parts()?;
    if parts.is_empty() {
        return Err(Error::data(
            folder,
            format!(
                "no picture with a label in {} archives: expected KEY.jpg with KEY.cls or KEY.json, or \
                 CLASS/x.jpg",
                shards.len()
            ),
        ));
    }
    Ok(Listed {
        format: "tar shards",
        carrier,
        parts,
        class_names,
        left_out: archive.left_out,
    })
}

/// All archives together.
struct Archive<'a> {
    folder: &'a Path,
    shards: &'a [PathBuf],
    members: Vec<Member>,
    options: &'a OpenOptions,
    left_out: LeftOut,
}

impl Archive<'_> {
    fn text(&self, member: &Member) -> Result<String> {
        let shard = &self.shards[member.shard as usize];
        let fail = |message: &str| Error::data(shard, format!("{}: {message}", member.path));
        if member.length > MOST_TEXT {
            return Err(fail("the text is too long"));
        }
        String::from_utf8(read_member(shard, member)?).map_err(|_| fail("expected text in UTF-8"))
    }

    /// The names of the classes, from a file next to the archives or in one.
    fn class_names(&self) -> Result<Vec<String>> {
        for name in NAME_FILES {
            let beside = self.folder.join(name);
            if beside.is_file() {
                return Ok(names_of(&read_text(&beside)?));
            }
            if let Some(member) = self.members.iter().find(|member| member.path == name) {
                return Ok(names_of(&self.text(member)?));
            }
        }
        Ok(Vec::new())
    }

    /// Whether files next to pictures say their labels.
    fn is_labelled_by_key(&self) -> bool {
        let says = |member: &Member| member.label.is_some() || key(&member.path).1 == "cls";
        self.members.iter().any(says)
    }

    fn parts(&mut self) -> Result<Vec<RawPart>> {
        let by_key = self.is_labelled_by_key();
        let mut by_part: BTreeMap<Option<PartName>, Vec<Member>> = BTreeMap::new();
        for member in std::mem::take(&mut self.members) {
            let part = part_of(&self.shards[member.shard as usize], self.folder);
            by_part.entry(part).or_default().push(member);
        }
        if by_part.len() > 1 && by_part.contains_key(&None) {
            return Err(Error::data(
                self.folder,
                "some archives are called train, val or test, and some are not; open them separately",
            ));
        }
        let mut parts = Vec::new();
        for (part, members) in by_part {
            if by_key {
                parts.extend(self.keyed(part, members)?);
            } else {
                parts.extend(self.in_folders(part, members)?);
            }
        }
        Ok(parts)
    }

    fn raw(
        &self,
        part: Option<PartName>,
        labels: Labels,
        mut found: Vec<(Member, u32)>,
    ) -> RawPart {
        found.sort_by(|(a, _), (b, _)| {
            (&a.path, a.shard, a.offset).cmp(&(&b.path, b.shard, b.offset))
        });
        let (members, class_of) = found.into_iter().unzip();
        RawPart {
            part,
            classes: labels.classes,
            class_of,
            empty_classes: Vec::new(),
            by_path: true,
            store: Box::new(Members {
                shards: self.shards.to_vec(),
                members,
            }),
        }
    }

    /// Pictures with their label in a file of the same key.
    fn keyed(&mut self, part: Option<PartName>, members: Vec<Member>) -> Result<Option<RawPart>> {
        let mut samples: BTreeMap<(u32, String), Vec<Member>> = BTreeMap::new();
        for member in members {
            let key = (member.shard, key(&member.path).0.to_owned());
            samples.entry(key).or_default().push(member);
        }
        let mut labels = Labels::default();
        let mut found = Vec::new();
        for ((shard, key), members) in samples {
            match sample(&key, &members) {
                Ok(Some((picture, label))) => found.push((picture, labels.place(&label))),
                Ok(None) => {}
                Err((reason, message)) if self.options.faulty == Faulty::LeaveOut => {
                    self.left_out.add(reason, &message);
                }
                Err((_, message)) => {
                    return Err(Error::data(&self.shards[shard as usize], message));
                }
            }
        }
        Ok((!found.is_empty()).then(|| self.raw(part, labels, found)))
    }

    /// Pictures in folders of classes; the folders may be in parts.
    fn in_folders(&mut self, part: Option<PartName>, members: Vec<Member>) -> Result<Vec<RawPart>> {
        let mut by_path: HashMap<String, Member> = HashMap::new();
        let mut tree = Tree::default();
        let mut folders = BTreeSet::new();
        for member in members {
            let path = member.path.clone();
            if let Some(other) = by_path.insert(path.clone(), member) {
                let message = format!("{path} occurs twice; pack the data again");
                if self.options.faulty == Faulty::Refuse {
                    return Err(Error::data(&self.shards[other.shard as usize], message));
                }
                self.left_out.add(Reason::Duplicate, &path);
                by_path.insert(path, other);
                continue;
            }
            for (at, _) in path.match_indices('/') {
                folders.insert(path[..at].to_owned());
            }
            if ending(&path) == Ending::Picture {
                tree.pictures.push(path);
            } else {
                self.left_out.add(Reason::NotAPicture, &path);
                tree.others.push(path);
            }
        }
        tree.pictures.sort_unstable();
        tree.folders = folders.into_iter().collect();
        if tree.pictures.is_empty() {
            return Ok(Vec::new());
        }
        let mut left_out = std::mem::take(&mut self.left_out);
        let rules = Rules {
            root: self.folder,
            tree: &tree,
            read: &|file| self.text(&by_path[file]),
            faulty: self.options.faulty,
        };
        let assigned = rules.assign(&mut left_out)?;
        self.left_out = left_out;
        let raw = |found: crate::formats::folders::Assigned| {
            let labels = Labels::with(found.classes);
            let members = found
                .pictures
                .iter()
                .map(|i| by_path[&tree.pictures[*i as usize]].clone());
            self.raw(
                part.or(found.part),
                labels,
                members.zip(found.class_of).collect(),
            )
        };
        Ok(assigned.into_iter().map(raw).collect())
    }
}

/// The picture and the label of a key; `None` if there is no picture.
fn sample(key: &str, members: &[Member]) -> Result<Option<(Member, String)>, (Reason, String)> {
    let mut names = BTreeSet::new();
    if let Some(twice) = members.iter().find(|member| !names.insert(&member.path)) {
        let message = format!("{} occurs twice; pack the data again", twice.path);
        return Err((Reason::Duplicate, message));
    }
    let is_picture = |member: &&Member| ending(&member.path) == Ending::Picture;
    let mut pictures = members.iter().filter(is_picture);
    let Some(picture) = pictures.next() else {
        return Ok(None);
    };
    if let Some(other) = pictures.next() {
        let message = format!(
            "key {key} has two pictures, {} and {}; expected one",
            picture.path, other.path
        );
        return Err((Reason::Duplicate, message));
    }
    let of_kind = |kind: &str| {
        members
            .iter()
            .find(|member| self::key(&member.path).1 == kind)
    };
    let label = of_kind("cls").or_else(|| of_kind("json"));
    match label.and_then(|member| member.label.clone()) {
        Some(label) => Ok(Some((picture.clone(), label))),
        None => Err((
            Reason::NoLabel,
            format!(
                "{} has no label: expected {key}.cls, or {key}.json with \"label\"",
                picture.path
            ),
        )),
    }
}

/// The part of an archive, by its name or by its folder in the data set.
fn part_of(shard: &Path, folder: &Path) -> Option<PartName> {
    let text =
        |name: Option<&std::ffi::OsStr>| name.unwrap_or_default().to_string_lossy().into_owned();
    let above = shard.parent().filter(|above| *above != folder);
    PartName::of_file(&text(shard.file_name()))
        .or_else(|| PartName::of(&text(above.and_then(Path::file_name))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_in_the_name_or_the_folder() {
        let part = |path: &str| part_of(Path::new(path), Path::new("d"));
        assert_eq!(part("d/in-val-000.tar"), Some(PartName::Val));
        assert_eq!(part("d/train/000.tar"), Some(PartName::Train));
        assert_eq!(part("d/000.tar"), None);
    }
}
