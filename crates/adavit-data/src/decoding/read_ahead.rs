//! From picture files to inputs, decoded ahead of the caller.

use std::path::PathBuf;
use std::sync::mpsc::sync_channel;

use rayon::prelude::*;

use crate::decoding::decode::read_regular;
use crate::decoding::find::FileError;
use crate::picture::{DecodedPicture, Picture};
use crate::preprocessing::InputConfig;

/// Batches that are decoded ahead.
const AHEAD: usize = 2;

/// Reads and decodes `files` for a model that takes `input`, in their order.
///
/// A thread of its own decodes `batch_size` files at a time, in parallel, and stays at most a few
/// batches ahead, so memory does not grow with the number of files. A file that is not a
/// picture, or on which a decoder fails, is an item with the reason.
pub fn read_ahead(
    files: impl Iterator<Item = Result<PathBuf, FileError>> + Send + 'static,
    input: InputConfig,
    batch_size: usize,
) -> impl Iterator<Item = DecodedPicture> {
    let (sender, receiver) = sync_channel(AHEAD);
    // Not joined: where the receiver stops, the thread may still wait for the next file's name.
    std::thread::spawn(move || {
        let mut files = files.peekable();
        while files.peek().is_some() {
            let batch: Vec<_> = files.by_ref().take(batch_size.max(1)).collect();
            let decoded = batch.into_par_iter().map(|file| decoded(&input, file));
            if sender.send(decoded.collect::<Vec<_>>()).is_err() {
                break;
            }
        }
    });
    receiver.into_iter().flatten()
}

fn decoded(input: &InputConfig, file: Result<PathBuf, FileError>) -> DecodedPicture {
    match file {
        Ok(path) => DecodedPicture {
            pixels: pixels(input, &path),
            path,
        },
        Err(FileError { path, message }) => DecodedPicture {
            path,
            pixels: Err(message),
        },
    }
}

fn pixels(input: &InputConfig, path: &std::path::Path) -> Result<Vec<u8>, String> {
    let bytes = read_regular(path)?;
    let options = input.decode_options(false);
    // One file that a decoder fails on must not end the others.
    let picture = std::panic::catch_unwind(|| Picture::decode_with(&bytes, &options))
        .unwrap_or_else(|_| Err("the decoder failed on it".into()))?;
    input.pixels(picture).map_err(|error| error.to_string())
}
