//! The machine that a command computes on: threads and device.

use std::thread::available_parallelism;

use adavit_kernels::MOST_THREADS;
use adavit_train::select_device;
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
