//! Reading the bytes of a pickle, whose end is checked wherever something is taken.

use std::ops::Range;

/// The longest pickle that is read, in bytes: a state dict's has some ten thousand.
const LONGEST: usize = 1 << 24;

/// The bytes of a pickle, and how many of them were read.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Reads the first bytes, as many as are read of a pickle.
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self {
            bytes: &bytes[..bytes.len().min(LONGEST)],
            at: 0,
        }
    }

    pub(super) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// How many bytes it has read.
    pub(super) fn at(&self) -> usize {
        self.at
    }

    /// The place of the next `n` bytes.
    pub(super) fn take(&mut self, n: usize) -> Result<Range<usize>, String> {
        let end = self
            .at
            .checked_add(n)
            .filter(|end| *end <= self.bytes.len());
        let end = end.ok_or(if self.bytes.len() == LONGEST {
            "longer than the 16 MiB that are read of a pickle"
        } else {
            "the file ends too early"
        })?;
        let range = self.at..end;
        self.at = end;
        Ok(range)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let range = self.take(N)?;
        let mut array = [0; N];
        array.copy_from_slice(&self.bytes[range]);
        Ok(array)
    }

    /// A little-endian number of `width` bytes, at most 8.
    pub(super) fn unsigned(&mut self, width: usize) -> Result<usize, String> {
        let range = self.take(width)?;
        let mut bytes = [0; 8];
        bytes[..width].copy_from_slice(&self.bytes[range]);
        usize::try_from(u64::from_le_bytes(bytes)).map_err(|_| "a length beyond memory".into())
    }

    /// The place of what comes before the next end of line.
    pub(super) fn line(&mut self) -> Result<Range<usize>, String> {
        let rest = &self.bytes[self.at..];
        let len = rest.iter().position(|byte| *byte == b'\n');
        let range = self.take(len.ok_or("the file ends too early")?)?;
        self.take(1)?;
        Ok(range)
    }

    /// A line as a text, empty where it is none.
    pub(super) fn text_line(&mut self) -> Result<&'a str, String> {
        let line = self.line()?;
        Ok(std::str::from_utf8(&self.bytes[line]).unwrap_or_default())
    }

    /// The place of a line without the quotes around it.
    pub(super) fn unquoted_line(&mut self) -> Result<Range<usize>, String> {
        let line = self.line()?;
        let text = &self.bytes[line.clone()];
        let quoted =
            text.len() >= 2 && matches!(text[0], b'\'' | b'"') && text.last() == text.first();
        Ok(if quoted {
            line.start + 1..line.end - 1
        } else {
            line
        })
    }
}
