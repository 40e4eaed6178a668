//! From which epoch on the thresholds are calibrated.

use adavit_train::TrainConfig;

/// The first epoch of the adaptive stage whose thresholds are calibrated, counted from 1; none where
/// they never are.
pub(super) fn calibrated_from(config: &TrainConfig, steps_per_epoch: u64) -> Option<u64> {
    if config.targets.is_some() || !config.method.is_learned() || steps_per_epoch == 0 {
        return None;
    }
    let all = config.adaptive.epochs * steps_per_epoch;
    let total = config.max_steps.map_or(all, |most| most.min(all));
    let settled = config.usage.settled_from();
    (1..=total.div_ceil(steps_per_epoch)).find(|epoch| {
        let done = (epoch * steps_per_epoch).min(total);
        done == total || done as f64 / total as f64 >= settled
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calibration_begins_halfway_from_the_ramp_to_the_end() {
        let mut config = TrainConfig::default();
        config.adaptive.epochs = 20;
        config.usage.ramp.end = 0.3;
        // 0.65 of 20 epochs.
        assert_eq!(calibrated_from(&config, 141), Some(13));
        config.max_steps = Some(60);
        assert_eq!(calibrated_from(&config, 141), Some(1));
        config.max_steps = Some(300);
        assert_eq!(calibrated_from(&config, 100), Some(2));
        config.usage.ramp.end = 1.0;
        assert_eq!(calibrated_from(&config, 100), Some(3));
    }

    #[test]
    fn targets_of_each_axis_are_not_calibrated() {
        let targets = adavit_train::Targets {
            tokens: 0.5,
            heads: 0.5,
            blocks: 0.5,
        };
        let config = TrainConfig {
            targets: Some(targets),
            ..TrainConfig::default()
        };
        assert_eq!(calibrated_from(&config, 10), None);
    }
}
