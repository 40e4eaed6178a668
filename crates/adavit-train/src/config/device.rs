//! The name of the device that a run computes on.

use candle_core::{Device, DeviceLocation};

use crate::error::{Error, Result};

/// Checks that `name` is `cpu`, `cuda`, `cuda:N` or `metal`; whether there is such a device is for the
/// program to find out.
pub(crate) fn check_device_name(name: &str) -> Result<()> {
    match location(name) {
        Some(_) => Ok(()),
        None => Err(Error::Setting(format!(
            "device: expected cpu, cuda, cuda:N or metal, found {name:?}"
        ))),
    }
}

/// Checks that `device` is the one that the settings call `name`: a run records that name.
pub(crate) fn check_device(name: &str, device: &Device) -> Result<()> {
    let found = match device.location() {
        // Its number is the registry's, and no name has one.
        DeviceLocation::Metal { .. } => DeviceLocation::Metal { gpu_id: 0 },
        found => found,
    };
    if location(name) == Some(found) {
        return Ok(());
    }
    Err(Error::Setting(format!(
        "device: expected {name}, as the settings say, found {found:?}; set device to the one that \
         is used"
    )))
}

fn location(name: &str) -> Option<DeviceLocation> {
    match name {
        "cpu" => Some(DeviceLocation::Cpu),
        "cuda" => Some(DeviceLocation::Cuda { gpu_id: 0 }),
        "metal" => Some(DeviceLocation::Metal { gpu_id: 0 }),
        _ => {
            let gpu_id = name.strip_prefix("cuda:")?.parse().ok()?;
            Some(DeviceLocation::Cuda { gpu_id })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_no_device_are_refused() {
        for name in ["cpu", "cuda", "cuda:3", "metal"] {
            check_device_name(name).unwrap();
        }
        for name in ["gpu", "cpu:1", "cuda:", "cuda:x", "cuda:-1", ""] {
            let error = check_device_name(name).unwrap_err();
            assert!(error.is_input_error(), "{name}");
        }
    }

    #[test]
    fn another_device_than_the_settings_name_is_refused() {
        check_device("cpu", &Device::Cpu).unwrap();
        let error = check_device("cuda:1", &Device::Cpu).unwrap_err();
        assert!(error.to_string().contains("expected cuda:1"), "{error}");
    }
}
