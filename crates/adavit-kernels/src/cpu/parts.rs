//! The parts of a product to compute: which rows, from which inputs, which outputs.

use std::ops::Range;

/// Which rows to compute; a row has the same number in the input and in the output.
#[derive(Debug, Clone, Copy)]
pub enum Rows<'a> {
    /// The first n.
    All(usize),
    /// These, ascending.
    Some(&'a [usize]),
}

impl Rows<'_> {
    pub(crate) fn len(self) -> usize {
        match self {
            Rows::All(n) => n,
            Rows::Some(rows) => rows.len(),
        }
    }

    /// Panics unless rows ascend and lie below `m`.
    pub(crate) fn check(self, m: usize) {
        match self {
            Rows::All(n) => assert!(n <= m, "rows: at most {m}, found {n}"),
            Rows::Some(rows) => {
                let ascending = rows.is_sorted_by(|a, b| a < b);
                let bounded = rows.last().is_none_or(|row| *row < m);
                assert!(ascending && bounded, "rows: ascending and below {m}");
            }
        }
    }

    #[inline(always)]
    pub(crate) fn at(self, index: usize) -> usize {
        match self {
            Rows::All(_) => index,
            Rows::Some(rows) => rows[index],
        }
    }
}

/// Rows that take the same part of a product.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Part<'a> {
    pub(crate) rows: Rows<'a>,
    /// Ranges of inputs, ascending: the others count as zero.
    pub(crate) inner: &'a [Range<usize>],
    /// Ranges of outputs, ascending, each starting with a panel: the others are left as they are.
    pub(crate) columns: &'a [Range<usize>],
}

impl Part<'_> {
    fn macs(&self) -> usize {
        self.rows.len() * total(self.inner) * total(self.columns)
    }
}

/// The length of ranges together.
pub(crate) fn total(ranges: &[Range<usize>]) -> usize {
    ranges.iter().map(Range::len).sum()
}

/// The parts of a product to compute: for some rows, from some ranges of inputs, some ranges of
/// outputs.
///
/// [`Self::clear`] keeps the allocated memory.
#[derive(Debug, Clone, Default)]
pub struct ProductParts {
    rows: Vec<usize>,
    ranges: Vec<Range<usize>>,
    places: Vec<PartAt>,
}

/// A part by its places in the lists.
#[derive(Debug, Clone)]
struct PartAt {
    rows: Range<usize>,
    inner: Range<usize>,
    columns: Range<usize>,
}

impl ProductParts {
    /// Forgets all parts.
    pub fn clear(&mut self) {
        self.rows.clear();
        self.ranges.clear();
        self.places.clear();
    }

    /// Adds `rows`, ascending, after the last row of the part before. Rows with the same ranges as
    /// the part before join it. Inputs outside of `inner` count as zero; outputs outside of `columns`
    /// stay as they are. Ranges ascend, and each range of `columns` starts where a group starts.
    pub fn push(
        &mut self,
        rows: impl IntoIterator<Item = usize>,
        inner: &[Range<usize>],
        columns: &[Range<usize>],
    ) {
        let start = self.rows.len();
        self.rows.extend(rows);
        let rows = start..self.rows.len();
        if let Some(last) = self.places.last_mut()
            && self.ranges[last.inner.clone()] == *inner
            && self.ranges[last.columns.clone()] == *columns
        {
            last.rows.end = rows.end;
            return;
        }
        let mut list = |ranges: &[Range<usize>]| {
            let start = self.ranges.len();
            self.ranges.extend_from_slice(ranges);
            start..self.ranges.len()
        };
        let (inner, columns) = (list(inner), list(columns));
        self.places.push(PartAt {
            rows,
            inner,
            columns,
        });
    }

    /// Returns the rows of all parts.
    pub fn rows(&self) -> &[usize] {
        &self.rows
    }

    /// Returns the multiply-adds.
    pub fn macs(&self) -> usize {
        let parts = 0..self.places.len();
        parts.map(|index| self.get(index).macs()).sum()
    }

    fn get(&self, index: usize) -> Part<'_> {
        let part = &self.places[index];
        Part {
            rows: Rows::Some(&self.rows[part.rows.clone()]),
            inner: &self.ranges[part.inner.clone()],
            columns: &self.ranges[part.columns.clone()],
        }
    }
}

/// The parts of a product.
#[derive(Debug, Clone, Copy)]
pub(crate) enum PartList<'a> {
    One(Part<'a>),
    Many(&'a ProductParts),
}

impl<'a> PartList<'a> {
    pub(crate) fn len(self) -> usize {
        match self {
            PartList::One(_) => 1,
            PartList::Many(parts) => parts.places.len(),
        }
    }

    pub(crate) fn get(self, index: usize) -> Part<'a> {
        match self {
            PartList::One(part) => part,
            PartList::Many(parts) => parts.get(index),
        }
    }
}
