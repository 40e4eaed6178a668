//! From paths to decoded pictures: finding files, reading and decoding them ahead.

pub(crate) mod decode;
pub(crate) mod endings;
pub(crate) mod find;
mod jpeg;
mod jpeg_header;
mod kind;
pub(crate) mod read_ahead;
pub(crate) mod unread_files;
