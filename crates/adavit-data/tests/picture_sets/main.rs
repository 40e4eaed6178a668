//! Contract: a path of any format becomes the same labelled pictures, and what is left out is counted.

#![expect(
    clippy::unwrap_used,
    reason = "the helpers here are test code, which clippy does not see"
)]

mod classes;
mod files;
mod folders;
mod lists;
mod packed;
mod pixels;
#[cfg(feature = "tar")]
mod streamed;
