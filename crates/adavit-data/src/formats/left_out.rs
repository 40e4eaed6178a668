//! What a data set leaves out, counted by reason.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Examples that are kept for each reason.
const EXAMPLES: usize = 5;

/// Why something is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Reason {
    /// The name of a file or folder begins with a dot.
    Hidden,
    /// A folder that a system or an archiver made, as `__MACOSX`.
    SystemFolder,
    /// The ending is not that of a picture.
    NotAPicture,
    /// The ending is that of a picture of a kind that is not read.
    UnreadKind,
    /// A file of 0 bytes.
    Empty,
    /// The file or folder cannot be read, or is neither a file nor a folder.
    Unreadable,
    /// The name is not UTF-8.
    NotUtf8,
    /// A folder that would be a class holds no picture.
    EmptyClass,
    /// A picture has no label.
    NoLabel,
    /// A picture lies next to the folders of the parts, not in one.
    OutsideParts,
    /// A list names a file that does not exist.
    Missing,
    /// A name occurs twice.
    Duplicate,
    /// A name leads outside of its archive.
    Outside,
    /// An archive ends early or is damaged.
    Damaged,
}

impl Reason {
    /// Returns whether what is left out is a picture, or may be one.
    pub fn is_picture(self) -> bool {
        !matches!(
            self,
            Self::Hidden | Self::SystemFolder | Self::NotAPicture | Self::EmptyClass
        )
    }

    fn words(self) -> &'static str {
        match self {
            Self::Hidden => "hidden",
            Self::SystemFolder => "folders of the system",
            Self::NotAPicture => "no pictures by their ending",
            Self::UnreadKind => "pictures of a kind that is not read",
            Self::Empty => "empty files",
            Self::Unreadable => "cannot be read",
            Self::NotUtf8 => "names that are not UTF-8",
            Self::EmptyClass => "class folders without a picture",
            Self::NoLabel => "pictures without a label",
            Self::OutsideParts => "pictures outside of the parts",
            Self::Missing => "missing files",
            Self::Duplicate => "names that occur twice",
            Self::Outside => "names that lead outside",
            Self::Damaged => "damaged archives",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words())
    }
}

/// How often a reason occurs, and where first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Count {
    /// How many files or folders.
    pub count: usize,
    /// The first few of them.
    pub examples: Vec<String>,
}

/// What a data set leaves out, by reason.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeftOut(BTreeMap<Reason, Count>);

impl LeftOut {
    /// Returns how many files or folders are left out for a reason.
    pub fn count(&self, reason: Reason) -> usize {
        self.0.get(&reason).map_or(0, |found| found.count)
    }

    /// Returns how many pictures are left out, for all reasons.
    pub fn pictures(&self) -> usize {
        let pictures = self.0.iter().filter(|(reason, _)| reason.is_picture());
        pictures.map(|(_, found)| found.count).sum()
    }

    /// Iterates over the reasons that occur.
    pub fn iter(&self) -> impl Iterator<Item = (Reason, &Count)> {
        self.0.iter().map(|(reason, count)| (*reason, count))
    }

    /// Returns whether nothing is left out.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn add(&mut self, reason: Reason, place: &str) {
        let found = self.0.entry(reason).or_default();
        found.count += 1;
        if found.examples.len() < EXAMPLES {
            found.examples.push(place.to_owned());
        }
    }
}

/// A line for each reason: `2 empty files: cat/a.jpg, dog/b.jpg`.
impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, (reason, found)) in self.0.iter().enumerate() {
            let end = if found.count > found.examples.len() {
                ", ..."
            } else {
                ""
            };
            let start = if i == 0 { "" } else { "\n" };
            let examples = found.examples.join(", ");
            write!(f, "{start}{} {reason}: {examples}{end}", found.count)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_counted_with_a_few_examples() {
        let mut left_out = LeftOut::default();
        for i in 0..7 {
            left_out.add(Reason::Empty, &format!("{i}.jpg"));
        }
        left_out.add(Reason::Hidden, ".x");
        assert_eq!((left_out.count(Reason::Empty), left_out.pictures()), (7, 7));
        assert_eq!(
            left_out.to_string(),
            "1 hidden: .x\n7 empty files: 0.jpg, 1.jpg, 2.jpg, 3.jpg, 4.jpg, ..."
        );
    }
}
