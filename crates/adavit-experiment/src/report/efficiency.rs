//! Efficiency curves: accuracy against compute, and against measured time, side by side, both over
//! those of the dense model.

use crate::report::chart::axis::Values;
use crate::report::chart::canvas::{Canvas, Ground, Place};
use crate::report::chart::figure::{Chart, Form, Legend, Series};
use crate::report::chart::frame::Labels;

/// Width and height of one of the two charts.
const SIZE: Place = Place { x: 500.0, y: 350.0 };
/// Names in a row of the legend.
const COLUMNS: usize = 3;

/// A model in the chart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CurvePoint<'a> {
    /// The curve that it belongs to.
    pub series: &'a str,
    /// Mean multiply-adds over those of the dense model.
    pub macs_share: f64,
    /// Time of an image over that of the dense model; not drawn where it is not finite.
    pub time_share: f64,
    /// Accuracy.
    pub top1: f64,
}

/// Draws top-1 accuracy against the shares of multiply-adds and of time, as an SVG file.
pub fn efficiency_chart(points: &[CurvePoint]) -> String {
    let mut names: Vec<&str> = Vec::new();
    for point in points {
        if !names.contains(&point.series) {
            names.push(point.series);
        }
    }
    let legend = Legend {
        names: &names,
        columns: COLUMNS,
    };
    let both = Place {
        x: 2.0 * SIZE.x,
        ..SIZE
    };
    let mut canvas = Canvas::new(both.x, both.y + legend.height(), Ground::White);
    let macs: fn(&CurvePoint) -> f64 = |point| point.macs_share;
    let time: fn(&CurvePoint) -> f64 = |point| point.time_share;
    for (left, x, label) in [
        (0.0, macs, "MACs, as a share of the dense model's"),
        (SIZE.x, time, "time, as a share of the dense model's"),
    ] {
        let curves = names.iter().map(|name| curve(points, name, x));
        let series: Vec<Series> = curves.collect();
        let chart = Chart {
            series: &series,
            labels: Labels {
                x: label,
                y: "top-1",
            },
            x: Values::Real,
            note: None,
        };
        chart.draw(&mut canvas, left, SIZE);
    }
    legend.draw(&mut canvas, both);
    canvas.finish()
}

/// The points of a curve, from left to right.
fn curve(points: &[CurvePoint], name: &str, x: fn(&CurvePoint) -> f64) -> Series {
    let of_curve = points.iter().filter(|point| point.series == name);
    let mut points: Vec<(f64, f64)> = of_curve.map(|point| (x(point), point.top1)).collect();
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    Series {
        name: name.into(),
        points,
        form: Form::Curve,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_curve_has_a_name_and_a_mark_for_each_model_in_both_charts() {
        let point = |series, macs_share| CurvePoint {
            series,
            macs_share,
            time_share: macs_share * 1.5,
            top1: 0.9,
        };
        let unmeasured = CurvePoint {
            time_share: f64::NAN,
            ..point("b", 0.3)
        };
        let svg = efficiency_chart(&[point("a", 0.5), point("a", 0.2), unmeasured]);
        // Marks of both charts, one of them without a time, and those of the legend.
        assert_eq!(svg.matches("class=\"mark\"").count(), 3 + 2 + 2);
        for text in [">a<", ">b<", "MACs, as", "time, as", ">top-1<"] {
            assert!(svg.contains(text), "{text}");
        }
        assert!(efficiency_chart(&[]).contains("<svg"));
    }
}
