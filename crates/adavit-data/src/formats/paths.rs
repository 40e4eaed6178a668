//! Many paths in one block of memory.

/// A list of paths: a million of them take little more than their letters.
#[derive(Debug, Default)]
pub(crate) struct Paths {
    text: String,
    ends: Vec<usize>,
}

impl Paths {
    /// Returns path `i`.
    pub(crate) fn get(&self, i: usize) -> &str {
        let start = i.checked_sub(1).map_or(0, |i| self.ends[i]);
        &self.text[start..self.ends[i]]
    }
}

impl<'a> FromIterator<&'a str> for Paths {
    fn from_iter<I: IntoIterator<Item = &'a str>>(paths: I) -> Self {
        let mut all = Self::default();
        for path in paths {
            all.text.push_str(path);
            all.ends.push(all.text.len());
        }
        all
    }
}
