//! The machine that a command computes on: threads and device.

use std::thread::available_parallelism;

use adavit_kernels::MOST_THREADS;
use anyhow::Result;
use candle_core::Device;

use crate::exit::bad_input;

/// Where to compute.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct MachineArgs {
    /// Device: cpu, cuda, cuda:N or metal [default: cpu]
    #[arg(long, value_name = "D", help_heading = "Machine")]
    pub(crate) device: Option<String>,

    /// Number of threads [default: all processors]
    #[arg(long, value_name = "N", help_heading = "Machine")]
    pub(crate) threads: Option<usize>,
}

/// A machine that is ready to compute.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) threads: usize,
    /// The vector instructions in use.
    pub(crate) simd: &'static str,
    pub(crate) device: Device,
    /// The device's name on the command line.
    pub(crate) device_name: String,
}

impl MachineArgs {
    /// Sets the threads and opens the device; the first thing that a command does.
    pub(crate) fn open(&self) -> Result<Machine> {
        let threads = set_threads(self.threads)?;
        let device_name = self.device.clone().unwrap_or_else(|| "cpu".into());
        Ok(Machine {
            threads,
            simd: adavit_kernels::simd_level()?,
            device: select_device(&device_name)?,
            device_name,
        })
    }
}

/// Sets the number of threads, all processors where none is given, and checks `ADAVIT_SIMD`. Comes
/// before anything that starts a thread.
pub(crate) fn set_threads(threads: Option<usize>) -> Result<usize> {
    let threads = match threads {
        Some(threads) => threads,
        None => available_parallelism().map_or(1, usize::from),
    };
    if !(1..=MOST_THREADS).contains(&threads) {
        return Err(bad_input(format!(
            "threads: expected between 1 and {MOST_THREADS}, found {threads}"
        )));
    }
    adavit_kernels::simd_level().map_err(|error| bad_input(error.to_string()))?;
    adavit_kernels::set_threads(threads)?;
    Ok(threads)
}

/// Returns the device called `name`: `cpu`, `cuda`, `cuda:N` or `metal`.
///
/// # Errors
/// If there is no such name, or this build or this machine has no such device.
pub(crate) fn select_device(name: &str) -> Result<Device> {
    let (kind, ordinal) = match name.split_once(':') {
        Some((kind, ordinal)) => (kind, ordinal.parse().ok()),
        None => (name, Some(0)),
    };
    let Some(ordinal) = ordinal else {
        return Err(unknown(name));
    };
    let without = |feature: &str| {
        bad_input(format!(
            "device {name}: this build has no {feature}; build with --features {feature}"
        ))
    };
    let failed = |error: candle_core::Error| bad_input(format!("device {name}: {error}"));
    match kind {
        "cpu" if ordinal == 0 => Ok(Device::Cpu),
        "cuda" if !candle_core::utils::cuda_is_available() => Err(without("cuda")),
        "cuda" => Device::new_cuda(ordinal).map_err(failed),
        "metal" if !candle_core::utils::metal_is_available() => Err(without("metal")),
        "metal" => Device::new_metal(ordinal).map_err(failed),
        _ => Err(unknown(name)),
    }
}

fn unknown(name: &str) -> anyhow::Error {
    bad_input(format!(
        "device: expected cpu, cuda, cuda:N or metal, found {name:?}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;

    #[test]
    fn names_that_are_no_device_are_refused() {
        assert!(select_device("cpu").unwrap().is_cpu());
        for name in ["gpu", "cpu:1", "cuda:x", ""] {
            let error = select_device(name).unwrap_err();
            assert_eq!(Exit::from(&error), Exit::BadInput, "{name}");
        }
    }
}
