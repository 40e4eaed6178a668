//! Labels as targets: smoothed, and mixed as the images of a batch are.

use crate::error::{Error, Result};

/// What targets are made for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TargetOptions {
    /// K.
    pub num_classes: usize,
    /// Share of each target that is spread over all classes, in [0, 1].
    pub smoothing: f64,
}

/// Returns the targets of a mixed batch: smoothed one-hot rows, each mixed with its mirror place.
///
/// ```text
/// one-hot: 1 - smoothing + smoothing / K at the label, smoothing / K elsewhere
/// ```
///
/// # Shapes
/// `labels`, `own_share`: `(B,)` -> `(B, K)`.
///
/// # Errors
/// [`Error::Setting`] if a label has no class, or there is another number of shares.
pub fn mixed_targets(
    labels: &[u32],
    own_share: &[f32],
    options: TargetOptions,
) -> Result<Vec<f32>> {
    if labels.len() != own_share.len() {
        return Err(Error::Setting(format!(
            "expected a share for each of {} labels, found {}",
            labels.len(),
            own_share.len()
        )));
    }
    let TargetOptions {
        num_classes,
        smoothing,
    } = options;
    let smooth = smoothed_targets(labels, num_classes, smoothing)?;
    let rows = smooth.chunks_exact(num_classes.max(1));
    let mixed = rows.clone().zip(rows.rev()).zip(own_share);
    let mix = |((own, other), &share): ((&[f32], &[f32]), &f32)| -> Vec<f32> {
        let pairs = own.iter().zip(other);
        pairs.map(|(a, b)| a * share + b * (1.0 - share)).collect()
    };
    Ok(mixed.flat_map(mix).collect())
}

/// Returns smoothed one-hot targets.
///
/// # Shapes
/// `labels`: `(B,)` -> `(B, K)`.
///
/// # Errors
/// [`Error::Setting`] if a label has no class.
pub fn smoothed_targets(labels: &[u32], num_classes: usize, smoothing: f64) -> Result<Vec<f32>> {
    let off = smoothing / num_classes as f64;
    let on = (1.0 - smoothing + off) as f32;
    let mut targets = vec![off as f32; labels.len() * num_classes];
    for (i, &label) in labels.iter().enumerate() {
        if label as usize >= num_classes {
            return Err(Error::Setting(format!(
                "expected labels below the number of classes, {num_classes}, found {label} of image {i}"
            )));
        }
        targets[i * num_classes + label as usize] = on;
    }
    Ok(targets)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(num_classes: usize, smoothing: f64) -> TargetOptions {
        TargetOptions {
            num_classes,
            smoothing,
        }
    }

    #[test]
    fn smoothed_targets_spread_their_share() {
        let targets = smoothed_targets(&[2, 0], 4, 0.1).unwrap();
        let (on, off) = (0.925, 0.025);
        assert_eq!(targets, [off, off, on, off, on, off, off, off]);
        assert_eq!(smoothed_targets(&[1], 2, 0.0).unwrap(), [0.0, 1.0]);
        let error = smoothed_targets(&[1, 4], 4, 0.0).unwrap_err().to_string();
        assert!(error.contains("found 4 of image 1"), "{error}");
        assert!(smoothed_targets(&[0], 0, 0.0).is_err());
    }

    #[test]
    fn targets_are_mixed_with_those_of_the_mirror_place() {
        let targets = mixed_targets(&[0, 1], &[0.75, 0.5], of(2, 0.0)).unwrap();
        assert_eq!(targets, [0.75, 0.25, 0.5, 0.5]);
        let rows = mixed_targets(&[0, 1, 2], &[0.3, 1.0, 0.6], of(3, 0.1)).unwrap();
        for row in rows.chunks(3) {
            assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-6);
        }
        assert!(mixed_targets(&[0], &[], of(2, 0.0)).is_err());
        assert!(mixed_targets(&[], &[], of(0, 0.0)).unwrap().is_empty());
    }
}
