//! The names of the parts of a data set.

use std::fmt;

/// A part of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PartName {
    /// To train on.
    Train,
    /// To choose by while training.
    Val,
    /// To measure at the end.
    Test,
}

impl PartName {
    /// Returns the part that a word names: `train`, `valid`, `Validation`, `testing`, ...
    pub(crate) fn of(word: &str) -> Option<Self> {
        match word.to_ascii_lowercase().as_str() {
            "train" | "training" => Some(Self::Train),
            "val" | "valid" | "validation" | "dev" => Some(Self::Val),
            "test" | "testing" => Some(Self::Test),
            _ => None,
        }
    }

    /// Returns the part that the last such word of a file's name names, as in `imagenet-train-000000.tar`.
    #[cfg(any(feature = "parquet", feature = "tar", test))]
    pub(crate) fn of_file(name: &str) -> Option<Self> {
        let mut words = name.rsplit(|c: char| !c.is_ascii_alphabetic());
        words.find_map(Self::of)
    }

    /// Returns the usual name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Val => "val",
            Self::Test => "test",
        }
    }
}

impl fmt::Display for PartName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_a_whole_word_of_a_file_name() {
        assert_eq!(
            PartName::of_file("imagenet-Train-00.tar"),
            Some(PartName::Train)
        );
        assert_eq!(
            PartName::of_file("validation-00000-of-00003.parquet"),
            Some(PartName::Val)
        );
        assert_eq!(PartName::of_file("trainer-1.tar"), None);
        assert_eq!(
            PartName::of_file("ab-test-val-000.tar"),
            Some(PartName::Val)
        );
    }
}
