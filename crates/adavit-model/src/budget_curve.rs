//! The measured compute of an elastic model: which budget to ask its networks for.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The mean MACs of held-out images, over those of the dense model, for budgets that an elastic
/// model was asked for.
///
/// Networks learn to spend what they are asked for, but not exactly. The curve says what to ask for
/// instead.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BudgetCurve {
    /// In rising order of what was asked for.
    pub points: Vec<CurvePoint>,
}

/// One point of a [`BudgetCurve`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CurvePoint {
    /// The budget that the networks were asked for.
    pub asked: f64,
    /// The mean MACs that images then had, over those of the dense model.
    pub share: f64,
}

impl BudgetCurve {
    /// Returns the budget to ask for to get `share`, linear between the points. Where more is asked
    /// for and less is spent, the points before count. Beyond the ends it is that of the end.
    pub fn asked_for(&self, share: f64) -> f64 {
        let mut most = f64::NEG_INFINITY;
        let rising = self.points.iter().filter(|point| {
            let rises = point.share > most;
            most = most.max(point.share);
            rises
        });
        let mut before: Option<CurvePoint> = None;
        for point in rising {
            if point.share >= share {
                let Some(low) = before else {
                    return point.asked;
                };
                let part = (share - low.share) / (point.share - low.share);
                return low.asked + part * (point.asked - low.asked);
            }
            before = Some(*point);
        }
        before.map_or(share, |last| last.asked)
    }

    /// Returns the share that images had at a budget that was asked for, linear between the points.
    /// Beyond the ends it is that of the end.
    pub fn share_of(&self, asked: f64) -> f64 {
        let above = self.points.iter().position(|point| point.asked >= asked);
        let last = self.points.len().saturating_sub(1);
        let high = above.unwrap_or(last);
        let [a, b] = [self.points[high.saturating_sub(1)], self.points[high]];
        if above.is_none() || a.asked >= b.asked {
            return b.share;
        }
        a.share + (asked - a.asked) / (b.asked - a.asked) * (b.share - a.share)
    }

    pub(crate) fn validate(&self) -> Result<()> {
        let asked = self.points.iter().map(|point| point.asked);
        let rising = self
            .points
            .windows(2)
            .all(|pair| pair[0].asked < pair[1].asked);
        let fits = |x: f64| x > 0.0 && x <= 1.0;
        let shares = self
            .points
            .iter()
            .all(|point| point.share > 0.0 && point.share < 2.0);
        if self.points.is_empty() || !rising || !shares || !asked.into_iter().all(fits) {
            return Err(Error::Config(
                "budget_curve: expected points of rising budgets in (0, 1] with shares above 0; \
                 train the model again, or remove the curve"
                    .into(),
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn curve(points: &[(f64, f64)]) -> BudgetCurve {
        let points = points.iter();
        BudgetCurve {
            points: points
                .map(|&(asked, share)| CurvePoint { asked, share })
                .collect(),
        }
    }

    #[test]
    fn the_curve_is_followed_backwards() {
        let curve = curve(&[(0.2, 0.3), (0.5, 0.5), (1.0, 0.9)]);
        for (share, asked) in [
            (0.1, 0.2),
            (0.3, 0.2),
            (0.4, 0.35),
            (0.5, 0.5),
            (0.7, 0.75),
            (0.95, 1.0),
        ] {
            let found = curve.asked_for(share);
            assert!((found - asked).abs() < 1e-12, "{share}: {found}");
        }
    }

    #[test]
    fn the_curve_is_followed_forwards() {
        let curve = curve(&[(0.2, 0.3), (0.5, 0.5), (1.0, 0.9)]);
        for (asked, share) in [(0.1, 0.3), (0.2, 0.3), (0.35, 0.4), (0.75, 0.7), (1.0, 0.9)] {
            assert!((curve.share_of(asked) - share).abs() < 1e-12);
        }
    }

    #[test]
    fn a_curve_that_falls_is_followed_where_it_rises() {
        let curve = curve(&[(0.2, 0.3), (0.4, 0.25), (0.6, 0.3), (1.0, 0.7)]);
        assert!((curve.asked_for(0.5) - 0.6).abs() < 1e-12);
        assert!((curve.asked_for(0.2) - 0.2).abs() < 1e-12);
    }

    #[test]
    fn curves_that_say_nothing_are_refused() {
        assert!(curve(&[(0.2, 0.3), (1.0, 0.9)]).validate().is_ok());
        for points in [
            &[][..],
            &[(0.5, 0.3), (0.5, 0.9)],
            &[(0.2, f64::NAN)],
            &[(0.2, 0.3), (1.2, 0.9)],
        ] {
            assert!(curve(points).validate().is_err(), "{points:?}");
        }
    }
}
