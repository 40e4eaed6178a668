//! Thresholds of an adaptive model for a budget.

use adavit_decision::{Axis, Thresholds};
use adavit_model::VisionTransformer;

use crate::error::{Error, Result};
use crate::eval::evaluate::evaluate;
use crate::eval::evaluation::Evaluation;
use crate::eval::images::Images;
use crate::eval::mode::Mode;

/// How far from a budget the mean MACs of held-out images may be, relative to it.
pub(crate) const BUDGET_TOLERANCE: f64 = 0.02;
/// The farthest that a boundary moves, in logits.
const FARTHEST: f64 = 8.0;

/// Returns a warning about a model whose mean MACs are `share` of the dense model's, where `budget`
/// was asked for; none within 2 %.
pub fn off_budget(share: f64, budget: f64) -> Option<String> {
    (!meets(share, budget)).then(|| {
        format!(
            "the gates allow {share:.3} of the dense model's MACs, where {budget:.3} was asked for"
        )
    })
}

fn meets(share: f64, budget: f64) -> bool {
    (share - budget).abs() <= BUDGET_TOLERANCE * budget
}

/// Moves the thresholds of `model`, all by one shift of the logit, until its mean MACs on `images`
/// are at most `budget` of the dense model's and as near to it as the gates allow.
///
/// Returns the evaluation with the thresholds that the model now has.
///
/// # Errors
/// [`Error::Mismatch`] if the model makes no decisions; else as for [`evaluate`].
pub fn calibrate(
    model: &mut VisionTransformer,
    images: &Images,
    budget: f64,
) -> Result<Evaluation> {
    let base = thresholds(model)?;
    let begun = evaluate(model, images, Mode::Masked)?;
    let start = Start { budget, begun };
    shift_to(model, images, start, &|shift| base.shifted(shift))
}

/// As [`calibrate`], but tries each axis alone too, and takes the thresholds whose accuracy on
/// `images` is best among those that meet the budget within 2 %; among those that do not exceed it,
/// where there are some.
///
/// A shift of all thresholds also turns on heads and blocks that training left off for every image.
/// Their weights have learnt nothing since then. More tokens alone turn on nothing of that kind.
///
/// # Errors
/// As for [`calibrate`].
pub fn calibrate_best(
    model: &mut VisionTransformer,
    images: &Images,
    budget: f64,
) -> Result<Evaluation> {
    let base = thresholds(model)?;
    let begun = evaluate(model, images, Mode::Masked)?;
    let share = begun.macs_share;
    let start = Start { budget, begun };
    let mut best = shift_to(model, images, start.clone(), &|shift| base.shifted(shift))?;
    let mut best_thresholds = thresholds(model)?;
    let worth = |found: &Evaluation| {
        let within = found.macs_share <= budget;
        (meets(found.macs_share, budget), within, found.top1)
    };
    for axis in [Axis::Tokens, Axis::Heads, Axis::Blocks] {
        let shifted = |shift| base.shifted_on(axis, shift);
        let farthest = if share > budget { FARTHEST } else { -FARTHEST };
        model.set_thresholds(shifted(farthest));
        let end = evaluate(model, images, Mode::Masked)?.macs_share;
        let reaches = (share.min(end)..=share.max(end)).contains(&budget);
        if !reaches && !meets(end, budget) {
            continue;
        }
        let found = shift_to(model, images, start.clone(), &shifted)?;
        let better = meets(found.macs_share, budget) && worth(&found) > worth(&best);
        if better {
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
            Error::Mismatch("calibration: expected an adaptive model, found a dense one".into())
        })
}

/// Where a search for thresholds starts.
#[derive(Clone)]
struct Start {
    budget: f64,
    /// The evaluation without a shift.
    begun: Evaluation,
}

/// Finds the shift whose thresholds, as `shifted` gives them, keep the most within the budget.
fn shift_to(
    model: &mut VisionTransformer,
    images: &Images,
    Start { budget, begun }: Start,
    shifted: &dyn Fn(f64) -> Thresholds,
) -> Result<Evaluation> {
    /// Bisection of a range of 16 in the logit: 10 halvings leave 0.016.
    const HALVINGS: usize = 10;
    /// Near enough to stop, relative to the budget.
    const NEAR: f64 = 0.005;
    let (mut low, mut high) = (-FARTHEST, FARTHEST);
    let (mut shift, mut share) = (0.0, begun.macs_share);
    let mut best = (shift, begun);
    for _ in 0..HALVINGS {
        let within = share <= budget;
        if within && share >= budget * (1.0 - NEAR) {
            break;
        }
        if within {
            high = shift;
        } else {
            low = shift;
        }
        shift = 0.5 * (low + high);
        model.set_thresholds(shifted(shift));
        let evaluation = evaluate(model, images, Mode::Masked)?;
        share = evaluation.macs_share;
        let best_share = best.1.macs_share;
        let better = match (share <= budget, best_share <= budget) {
            (true, true) => share > best_share,
            (false, false) => share < best_share,
            (within, _) => within,
        };
        if better {
            best = (shift, evaluation);
        }
    }
    model.set_thresholds(shifted(best.0));
    Ok(best.1)
}
