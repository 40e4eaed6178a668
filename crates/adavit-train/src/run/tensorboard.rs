//! TensorBoard's event files: scalars over steps.
//!
//! A file is a sequence of records, each `length (8 bytes), checksum, event, checksum`, where an event
//! is a protocol buffer and a checksum a masked CRC-32C (TensorFlow's TFRecord format). Each start of
//! a run writes a file of its own; TensorBoard reads them together.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use prost::Message;

use crate::error::{Error, Result};
use crate::run::environment::host_name;

/// How the names of event files begin.
pub(crate) const FILE_PREFIX: &str = "events.out.tfevents.";

#[derive(Clone, PartialEq, Message)]
struct EventRecord {
    /// Seconds since 1970.
    #[prost(double, tag = "1")]
    wall_time: f64,
    #[prost(int64, tag = "2")]
    step: i64,
    #[prost(string, optional, tag = "3")]
    file_version: Option<String>,
    #[prost(message, optional, tag = "5")]
    summary: Option<ScalarSummary>,
    #[prost(message, optional, tag = "7")]
    session_log: Option<SessionLog>,
}

#[derive(Clone, PartialEq, Message)]
struct SessionLog {
    /// 1 for a start: what earlier files hold from this step on no longer counts.
    #[prost(int32, tag = "1")]
    status: i32,
}

#[derive(Clone, PartialEq, Message)]
struct ScalarSummary {
    #[prost(message, repeated, tag = "1")]
    values: Vec<Scalar>,
}

#[derive(Clone, PartialEq, Message)]
struct Scalar {
    #[prost(string, tag = "1")]
    tag: String,
    // Optional, so that 0 is written too.
    #[prost(float, optional, tag = "2")]
    simple_value: Option<f32>,
}

/// Writes one event file.
#[derive(Debug)]
pub(crate) struct EventWriter {
    path: PathBuf,
    file: File,
}

impl EventWriter {
    /// Starts a file in `folder` for a run that resumes after `step` steps.
    pub(crate) fn create(folder: &Path, step: u64) -> Result<Self> {
        let name = format!(
            "{FILE_PREFIX}{:010}.{}.{}",
            now() as u64,
            host_name(),
            std::process::id()
        );
        let path = folder.join(name);
        let file = OpenOptions::new().create(true).append(true).open(&path);
        let mut writer = Self {
            file: file.map_err(Error::io("writing", &path))?,
            path,
        };
        writer.write(&EventRecord {
            wall_time: now(),
            file_version: Some("brain.Event:2".into()),
            ..EventRecord::default()
        })?;
        // In the first file too: TensorBoard takes the first start it sees for that of the run, and
        // heeds the step of later ones.
        writer.write(&EventRecord {
            wall_time: now(),
            step: i64::try_from(step + 1).unwrap_or(i64::MAX),
            session_log: Some(SessionLog { status: 1 }),
            ..EventRecord::default()
        })?;
        Ok(writer)
    }

    /// Writes values of one step, each with its name.
    pub(crate) fn scalars(&mut self, step: u64, values: &[(String, f64)]) -> Result<()> {
        let scalar = |(tag, value): &(String, f64)| Scalar {
            tag: tag.clone(),
            simple_value: Some(*value as f32),
        };
        self.write(&EventRecord {
            wall_time: now(),
            step: i64::try_from(step).unwrap_or(i64::MAX),
            summary: Some(ScalarSummary {
                values: values.iter().map(scalar).collect(),
            }),
            ..EventRecord::default()
        })
    }

    fn write(&mut self, event: &EventRecord) -> Result<()> {
        let event = event.encode_to_vec();
        let length = (event.len() as u64).to_le_bytes();
        let record = [
            &length[..],
            &masked_crc(&length).to_le_bytes(),
            &event,
            &masked_crc(&event).to_le_bytes(),
        ]
        .concat();
        self.file
            .write_all(&record)
            .map_err(Error::io("writing", &self.path))
    }
}

fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64())
}

/// A rotation and an offset, so that checksums of checksums differ.
fn masked_crc(bytes: &[u8]) -> u32 {
    crc32c::crc32c(bytes)
        .rotate_right(15)
        .wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_tensorflows() {
        // The check value of CRC-32C, and the same rotated by 15 bits and moved.
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
        assert_eq!(masked_crc(b"123456789"), 0xc78a_b0e5);
    }
}
