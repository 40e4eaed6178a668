//! The names of a sweep's points, which their files and runs have too.

use crate::sweep::config::Rival;

pub(super) fn dense(seed: u64) -> String {
    format!("dense-s{seed}")
}

pub(super) fn adaptive(budget: f64, seed: u64) -> String {
    format!("adaptive-{budget}-s{seed}")
}

/// Thresholds for `budget`, moved from where the training for `trained` left them.
pub(super) fn calibrated(budget: f64, trained: f64, seed: u64) -> String {
    format!("calibrated-{budget}-from-{trained}-s{seed}")
}

pub(super) fn rival(rival: Rival, tuned: bool, budget: f64, seed: u64) -> String {
    let tuned = if tuned { "-tuned" } else { "" };
    format!("{}{tuned}-{budget}-s{seed}", rival.name())
}

pub(super) fn smaller(name: &str) -> String {
    format!("smaller-{name}")
}

pub(super) fn variant(name: &str) -> String {
    format!("variant-{name}")
}
