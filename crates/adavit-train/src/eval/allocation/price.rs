//! Prices: what images spend at one, and the one at which they spend what is asked for.

use adavit_decision::{Knot, choose};

use crate::eval::allocation::record::Record;
use crate::eval::allocation::ridge::Map;

/// The share of the way from the first knot that is left out at both ends: a few images would pay
/// almost any price for it.
const ENDS: f64 = 0.02;

/// A budget that an image may get, and what the model showed at it.
pub(super) struct Shown {
    pub(super) knot: Knot,
    pub(super) record: Record,
}

/// Returns the mean share to find a price for at each knot: that of the knot.
pub(super) fn targets(shown: &[Shown]) -> Vec<f64> {
    let shares: Vec<f64> = shown.iter().map(|shown| shown.knot.share).collect();
    let last = shares.len() - 1;
    let near = |from: usize, to: usize| shares[from] + ENDS * (shares[to] - shares[from]);
    let mut targets = shares.clone();
    targets[0] = near(0, 1);
    targets[last] = near(last, last - 1);
    targets
}

/// Returns the class tokens of the knot whose budget is the nearest to `first`.
pub(super) fn tokens_at(shown: &[Shown], first: f64) -> &[f32] {
    let far = |shown: &Shown| (shown.knot.asked - first).abs();
    let mut nearest = &shown[0];
    for other in shown {
        if far(other) < far(nearest) {
            nearest = other;
        }
    }
    &nearest.record.tokens
}

/// The predicted losses of each image at each knot, `(images, K)`, by the map of the image.
pub(super) fn predictions<'m>(
    tokens: &[f32],
    shown: &[Shown],
    map: impl Fn(usize) -> &'m Map,
) -> Vec<f32> {
    let images = shown[0].record.losses.len();
    let rows = tokens.chunks_exact(tokens.len() / images).enumerate();
    rows.flat_map(|(image, row)| map(image).apply(row))
        .map(|loss| loss as f32)
        .collect()
}

/// The mean of what images showed at the knots that they get at a price.
pub(super) fn spent(
    shown: &[Shown],
    predicted: &[f32],
    price: f64,
    value: impl Fn(&Record, usize) -> f64,
) -> f64 {
    let knots: Vec<Knot> = shown.iter().map(|shown| shown.knot).collect();
    let images = predicted.chunks_exact(knots.len());
    let count = images.len() as f64;
    let values = images.enumerate().map(|(image, predicted)| {
        let knot = choose(&knots, predicted, price);
        value(&shown[knot].record, image)
    });
    values.sum::<f64>() / count
}

/// Finds by bisection the price at which images spend `target` on average.
pub(super) fn price_for(shown: &[Shown], predicted: &[f32], target: f64) -> f64 {
    let share = |price: f64| {
        spent(shown, predicted, price, |record, image| {
            record.shares[image]
        })
    };
    let gaps = shown.windows(2);
    let gap = gaps.map(|pair| pair[1].knot.share - pair[0].knot.share);
    let least = gap.fold(f64::INFINITY, f64::min);
    let (low, high) = predicted.iter().fold((0f32, 0f32), |(low, high), loss| {
        (low.min(*loss), high.max(*loss))
    });
    // Beyond these every image gets the largest, or the smallest, knot.
    let end = (f64::from(high) - f64::from(low)) / least + 1.0;
    let (mut dear, mut cheap) = (end, -end);
    for _ in 0..60 {
        let middle = f64::midpoint(dear, cheap);
        if share(middle) > target {
            cheap = middle;
        } else {
            dear = middle;
        }
    }
    let far = |price: f64| (share(price) - target).abs();
    if far(cheap) < far(dear) { cheap } else { dear }
}

/// The accuracy with one budget for all images, at a mean share.
pub(super) fn uniform_top1(shown: &[Shown], share: f64) -> f64 {
    let last = shown.len() - 1;
    let high = shown.iter().position(|shown| shown.knot.share >= share);
    let high = high.unwrap_or(last).max(1);
    let [a, b] = [&shown[high - 1], &shown[high]];
    let part = (share - a.knot.share) / (b.knot.share - a.knot.share);
    let (low, high) = (a.record.top1(), b.record.top1());
    low + part.clamp(0.0, 1.0) * (high - low)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Images whose loss falls by their number for each share, at three knots.
    fn shown() -> Vec<Shown> {
        let knots = [(0.25, 0.25), (0.5, 0.5), (1.0, 1.0)];
        let record = |share: f64| Record {
            losses: (0..8)
                .map(|image| f64::from(image) * (1.0 - share))
                .collect(),
            shares: vec![share; 8],
            share,
            right: (0..8).map(|image| share >= 1.0 || image < 4).collect(),
            tokens: Vec::new(),
        };
        let shown = knots.map(|(asked, share)| Shown {
            knot: Knot { asked, share },
            record: record(share),
        });
        shown.into()
    }

    fn losses(shown: &[Shown]) -> Vec<f32> {
        (0..8)
            .flat_map(|image| shown.iter().map(move |s| s.record.losses[image] as f32))
            .collect()
    }

    #[test]
    fn a_price_gives_the_mean_share_that_is_asked_for() {
        let shown = shown();
        let predicted = losses(&shown);
        let share = |price| {
            spent(&shown, &predicted, price, |record, image| {
                record.shares[image]
            })
        };
        // A share buys image i a loss of i: at a price between 3 and 4, half of the images buy all.
        // Of what eight images can spend, 1 is the nearest to 0.99.
        for (target, [low, high], spent) in [
            (0.625, [3.0, 4.0], 0.625),
            (0.25, [7.0, 8.0], 0.25),
            (0.99, [-1.0, 0.0], 1.0),
        ] {
            let price = price_for(&shown, &predicted, target);
            // The ends are found to the last bits of the bisection.
            assert!((low - 1e-9..=high).contains(&price), "{target}: {price}");
            assert!((share(price) - spent).abs() < 1e-12, "{target}");
        }
        let mut before = f64::INFINITY;
        for step in -10..100 {
            let now = share(f64::from(step) * 0.1);
            assert!(now <= before);
            before = now;
        }
    }

    #[test]
    fn targets_are_the_shares_of_the_knots_but_near_the_ends() {
        let expected = [0.255, 0.5, 0.99];
        for (target, expected) in targets(&shown()).into_iter().zip(expected) {
            assert!((target - expected).abs() < 1e-12);
        }
    }

    #[test]
    fn tokens_are_those_of_the_nearest_knot() {
        let mut shown = shown();
        for (index, shown) in shown.iter_mut().enumerate() {
            shown.record.tokens = vec![index as f32];
        }
        for (first, knot) in [(0.1, 0.0), (0.3, 0.0), (0.4, 1.0), (0.9, 2.0)] {
            assert_eq!(tokens_at(&shown, first), [knot]);
        }
    }

    #[test]
    fn the_uniform_accuracy_is_linear_between_the_knots() {
        let shown = shown();
        for (share, top1) in [(0.1, 0.5), (0.4, 0.5), (0.75, 0.75), (1.0, 1.0), (1.1, 1.0)] {
            assert!((uniform_top1(&shown, share) - top1).abs() < 1e-12);
        }
    }
}
