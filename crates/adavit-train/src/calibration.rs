//! Thresholds of an adaptive model for a budget.

use adavit_decision::{Axis, Thresholds};
use adavit_model::VisionTransformer;

use crate::evaluate::{Evaluation, Images, Mode, evaluate};
use crate::{Error, Result};

/// How far from a budget the mean MACs of held-out images may be, relative to it.
pub(crate) const BUDGET_TOLERANCE: f64 = 0.02;
/// The farthest that a boundary moves, in logits.
const FARTHEST: f64 = 8.0;

/// What to tell of a model whose mean MACs are `share` of the plain model's where `budget` was asked
/// for; none within 2 %.
pub fn off_budget(share: f64, budget: f64) -> Option<String> {
    ((share - budget).abs() > BUDGET_TOLERANCE * budget).then(|| {
        format!(
            "the gates allow {share:.3} of the plain model's MACs, where {budget:.3} was asked for"
        )
    })
}

/// Moves the thresholds of `model`, all by one shift of the logit, until its mean MACs on `images`
/// are at most `budget` of the plain model's and as near to it as the gates allow.
///
/// Returns the evaluation with the thresholds that the model now has.
///
/// # Errors
/// If the model is a plain one, or candle fails.
pub fn calibrate(
    model: &mut VisionTransformer,
    images: &Images,
    budget: f64,
) -> Result<Evaluation> {
    let base = thresholds(model)?;
    shift_to(model, images, budget, &|shift| base.shifted(shift))
}

/// As [`calibrate`], but tries each axis alone too, and takes the thresholds whose accuracy on
/// `images` is best among those that meet the budget.
///
/// A shift of all thresholds also turns on heads and sub-layers that training left off for every
/// image, whose weights have learnt nothing since; more tokens alone do not.
///
/// # Errors
/// As for [`calibrate`].
pub fn calibrate_best(
    model: &mut VisionTransformer,
    images: &Images,
    budget: f64,
) -> Result<Evaluation> {
    let base = thresholds(model)?;
    let begun = evaluate(model, images, Mode::Masked)?.macs_share;
    let mut best = calibrate(model, images, budget)?;
    let mut best_thresholds = thresholds(model)?;
    let meets = |found: &Evaluation| off_budget(found.macs_share, budget).is_none();
    for axis in [Axis::Tokens, Axis::Heads, Axis::Sublayers] {
        let shifted = |shift| base.shifted_on(axis, shift);
        let farthest = if begun > budget { FARTHEST } else { -FARTHEST };
        model.set_thresholds(shifted(farthest));
        let end = evaluate(model, images, Mode::Masked)?.macs_share;
        let reaches = (begun.min(end)..=begun.max(end)).contains(&budget);
        if !reaches && off_budget(end, budget).is_some() {
            continue;
        }
        let found = shift_to(model, images, budget, &shifted)?;
        if meets(&found) && (!meets(&best) || found.top1 > best.top1) {
            (best, best_thresholds) = (found, thresholds(model)?);
        }
    }
    model.set_thresholds(best_thresholds);
    Ok(best)
}

fn thresholds(model: &VisionTransformer) -> Result<Thresholds> {
    let decisions = model.config().decisions.as_ref();
    decisions
        .map(|decisions| decisions.thresholds)
        .ok_or_else(|| {
            Error::Input("calibration: expected an adaptive model, found a plain one".into())
        })
}

/// Finds the shift whose thresholds, as `shifted` gives them, keep the most within the budget.
fn shift_to(
    model: &mut VisionTransformer,
    images: &Images,
    budget: f64,
    shifted: &dyn Fn(f64) -> Thresholds,
) -> Result<Evaluation> {
    /// Bisection of a range of 16 in the logit: 10 halvings leave 0.016.
    const HALVINGS: usize = 10;
    /// Near enough to stop, relative to the budget.
    const NEAR: f64 = 0.005;
    let (mut low, mut high) = (-FARTHEST, FARTHEST);
    let mut shift = 0.0;
    let mut best: Option<(f64, Evaluation)> = None;
    for _ in 0..=HALVINGS {
        model.set_thresholds(shifted(shift));
        let evaluation = evaluate(model, images, Mode::Masked)?;
        let share = evaluation.macs_share;
        let within = share <= budget;
        let better = best.as_ref().is_none_or(|(_, best)| {
            let best_within = best.macs_share <= budget;
            match (within, best_within) {
                (true, true) => share > best.macs_share,
                (false, false) => share < best.macs_share,
                (within, _) => within,
            }
        });
        if better {
            best = Some((shift, evaluation));
        }
        if within && share >= budget * (1.0 - NEAR) {
            break;
        }
        if within {
            high = shift;
        } else {
            low = shift;
        }
        shift = 0.5 * (low + high);
    }
    let Some((shift, evaluation)) = best else {
        return Err(Error::Input("calibration: nothing was evaluated".into()));
    };
    model.set_thresholds(shifted(shift));
    Ok(evaluation)
}
