//! What a run ran on: recorded at each of its starts.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};
use std::{fmt, fs};

use adavit_model::write_file;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// What a speed depends on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Machine {
    /// The processor's name, where the system tells it.
    pub cpu: String,
    /// Vector instructions in use.
    pub simd: String,
    /// `cpu`, `cuda`, `cuda:N` or `metal`.
    pub device: String,
    /// Threads of every pool.
    pub threads: usize,
}

impl Machine {
    /// This one, with the threads of this process.
    pub fn this(device: &str) -> Self {
        Self {
            cpu: cpu_name(),
            simd: adavit_kernels::simd_level().unwrap_or("unknown").into(),
            device: device.into(),
            threads: adavit_kernels::threads(),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let plural = if self.threads == 1 { "" } else { "s" };
        write!(
            f,
            "{}, {} kernels, {}, {} thread{plural}",
            self.cpu, self.simd, self.device, self.threads
        )
    }
}

/// One start of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start {
    /// Seconds since 1970.
    pub time: u64,
    /// Of adavit.
    pub version: String,
    /// The source that the program was built from.
    pub commit: String,
    /// The machine's name.
    pub host: String,
    /// Operating system and architecture.
    pub os: String,
    /// The processor's name, where the system tells it.
    pub cpu: String,
    /// Vector instructions in use.
    pub simd: String,
    /// `cpu`, `cuda`, `cuda:N` or `metal`.
    pub device: String,
    /// Threads of every pool.
    pub threads: usize,
    /// Of everything random.
    pub seed: u64,
}

impl Start {
    /// A start now.
    pub(crate) fn now(commit: &str, device: &str, seed: u64) -> Self {
        let time = SystemTime::now().duration_since(UNIX_EPOCH);
        let machine = Machine::this(device);
        Self {
            time: time.map_or(0, |time| time.as_secs()),
            version: env!("CARGO_PKG_VERSION").into(),
            commit: commit.into(),
            host: host_name(),
            os: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            cpu: machine.cpu,
            simd: machine.simd,
            device: machine.device,
            threads: machine.threads,
            seed,
        }
    }
}

/// Adds a start to the list in `path`.
pub(crate) fn record_start(path: &Path, start: Start) -> Result<()> {
    let text = fs::read_to_string(path).unwrap_or_default();
    let mut starts: Vec<Start> = serde_json::from_str(&text).unwrap_or_default();
    starts.push(start);
    let json =
        serde_json::to_string_pretty(&starts).map_err(|error| Error::encode("run.json", &error))?;
    Ok(write_file(path, format!("{json}\n").as_bytes())?)
}

/// The machine's name, fit for the name of a file.
pub(crate) fn host_name() -> String {
    let told = fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let told = told.or_else(|| std::env::var("HOSTNAME").ok());
    let told = told.or_else(|| std::env::var("COMPUTERNAME").ok());
    let name: String = told
        .unwrap_or_default()
        .trim()
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '-' {
                c
            } else {
                '_'
            }
        })
        .collect();
    if name.is_empty() {
        "unknown".into()
    } else {
        name
    }
}

/// What `/proc/cpuinfo` says. Virtual machines give processors of several generations one name, which
/// family and model tell apart.
fn cpu_name() -> String {
    cpu_of(&fs::read_to_string("/proc/cpuinfo").unwrap_or_default())
}

fn cpu_of(cpuinfo: &str) -> String {
    let field = |key: &str| {
        let mut fields = cpuinfo.lines().filter_map(|line| line.split_once(':'));
        fields.find_map(|(name, value)| (name.trim() == key).then(|| value.trim()))
    };
    let name = field("model name").unwrap_or("unknown");
    match (field("cpu family"), field("model")) {
        (Some(family), Some(model)) => format!("{name}, family {family}, model {model}"),
        _ => name.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generations_of_a_processor_are_told_apart() {
        let text = "processor\t: 0\ncpu family\t: 25\nmodel\t\t: 17\nmodel name\t: AMD EPYC\n";
        assert_eq!(cpu_of(text), "AMD EPYC, family 25, model 17");
        assert_eq!(cpu_of("model name : Some\n"), "Some");
        assert_eq!(cpu_of(""), "unknown");
    }
}
