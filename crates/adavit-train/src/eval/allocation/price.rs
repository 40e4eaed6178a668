//! Prices: what images spend at one, and the one at which they spend what is asked for.

use adavit_decision::{Knot, choose};

use crate::eval::allocation::record::Record;
use crate::eval::allocation::ridge::Map;

/// Where between two knots a price is sought, besides at the knots.
const BETWEEN: [f64; 1] = [0.5];
/// The same next to the first and the last knot, where few images pay for most of the way.
const AT_THE_START: [f64; 4] = [0.02, 0.25, 0.5, 0.75];
const AT_THE_END: [f64; 4] = [0.25, 0.5, 0.75, 0.98];

/// A budget that an image may get, and what the model showed at it.
pub(super) struct Shown {
    pub(super) knot: Knot,
    pub(super) record: Record,
}

/// A mean share to find the price of.
pub(super) struct Target {
    pub(super) share: f64,
    /// The budget of the first block.
    pub(super) first: f64,
    /// The knot whose class tokens are the nearest to those at `first`.
    pub(super) nearest: usize,
}

/// The mean shares to find prices for, in rising order: those of the knots, and some between.
pub(super) fn targets(shown: &[Shown]) -> Vec<Target> {
    let last = shown.len() - 1;
    let mut targets = Vec::new();
    for (index, pair) in shown.windows(2).enumerate() {
        let [low, high] = [pair[0].knot, pair[1].knot];
        let mut parts = vec![0.0];
        match (index == 0, index + 1 == last) {
            (true, true) => parts.extend([&AT_THE_START[..], &AT_THE_END[3..]].concat()),
            (true, false) => parts.extend(AT_THE_START),
            (false, true) => parts.extend(AT_THE_END),
            (false, false) => parts.extend(BETWEEN),
        }
        targets.extend(parts.into_iter().map(|part| Target {
            share: low.share + part * (high.share - low.share),
            first: low.asked + part * (high.asked - low.asked),
            nearest: index + usize::from(part >= 0.5),
        }));
    }
    let Knot { asked, share } = shown[last].knot;
    targets.push(Target {
        share,
        first: asked,
        nearest: last,
    });
    targets
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
        for (target, low, high) in [(0.625, 3.0, 4.0), (0.25, 7.0, 8.0), (1.0, -1.0, 0.0)] {
            let price = price_for(&shown, &predicted, target);
            assert!((low..=high).contains(&price), "{target}: {price}");
            assert!((share(price) - target).abs() < 1e-12, "{target}");
        }
        let mut before = f64::INFINITY;
        for step in -10..100 {
            let now = share(f64::from(step) * 0.1);
            assert!(now <= before);
            before = now;
        }
    }

    #[test]
    fn targets_rise_from_the_first_knot_to_the_last() {
        let shown = shown();
        let targets = targets(&shown);
        let shares: Vec<f64> = targets.iter().map(|target| target.share).collect();
        assert!(shares.windows(2).all(|pair| pair[0] < pair[1]));
        assert_eq!((shares[0], shares[shares.len() - 1]), (0.25, 1.0));
        let ends = [&targets[0], &targets[targets.len() - 1]];
        assert_eq!(ends.map(|target| target.nearest), [0, 2]);
        assert_eq!(ends.map(|target| target.first), [0.25, 1.0]);
    }

    #[test]
    fn the_uniform_accuracy_is_linear_between_the_knots() {
        let shown = shown();
        for (share, top1) in [(0.1, 0.5), (0.4, 0.5), (0.75, 0.75), (1.0, 1.0), (1.1, 1.0)] {
            assert!((uniform_top1(&shown, share) - top1).abs() < 1e-12);
        }
    }
}
