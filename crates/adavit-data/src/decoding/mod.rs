//! From paths to decoded pictures: finding files, reading and decoding them ahead.

mod decode;
pub(crate) mod find;
pub(crate) mod read_ahead;
