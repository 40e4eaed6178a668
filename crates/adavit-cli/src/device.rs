//! Devices by name.

use adavit_train::Error;
use candle_core::Device;

/// Returns the device called `name`: `cpu`, `cuda`, `cuda:N` or `metal`.
///
/// # Errors
/// If there is no such name, or this build or this machine has no such device.
pub(crate) fn select_device(name: &str) -> Result<Device, Error> {
    let (kind, ordinal) = match name.split_once(':') {
        Some((kind, ordinal)) => (kind, ordinal.parse().ok()),
        None => (name, Some(0)),
    };
    let Some(ordinal) = ordinal else {
        return Err(unknown(name));
    };
    let without = |feature: &str| {
        Error::Input(format!(
            "device {name}: this build has no {feature}; build with --features {feature}"
        ))
    };
    let failed = |error: candle_core::Error| Error::Input(format!("device {name}: {error}"));
    match kind {
        "cpu" if ordinal == 0 => Ok(Device::Cpu),
        "cuda" if !candle_core::utils::cuda_is_available() => Err(without("cuda")),
        "cuda" => Device::new_cuda(ordinal).map_err(failed),
        "metal" if !candle_core::utils::metal_is_available() => Err(without("metal")),
        "metal" => Device::new_metal(ordinal).map_err(failed),
        _ => Err(unknown(name)),
    }
}

fn unknown(name: &str) -> Error {
    Error::Input(format!(
        "device: expected cpu, cuda, cuda:N or metal, found {name:?}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_no_device_are_refused() {
        assert!(select_device("cpu").unwrap().is_cpu());
        for name in ["gpu", "cpu:1", "cuda:x", ""] {
            assert!(select_device(name).unwrap_err().is_input_error(), "{name}");
        }
    }
}
