//! Efficiency curves: accuracy against compute, and against measured time, side by side, both over
//! the plain model's.

use plotters::prelude::*;

use crate::error::{Error, Result};
use crate::report::charts::{PALETTE, range, shortest};

/// Width and height of the picture.
const SIZE: (u16, u16) = (1000, 420);
/// Height of what lies below the two charts: the legend.
const LEGEND: u16 = 64;
/// Names in a row of the legend.
const COLUMNS: u16 = 4;

/// A model in the chart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CurvePoint<'a> {
    /// The curve that it belongs to.
    pub series: &'a str,
    /// Mean multiply-adds over those of the plain model.
    pub macs_share: f64,
    /// Time of an image over that of the plain model; not drawn where it is not finite.
    pub time_share: f64,
    /// Accuracy.
    pub top1: f64,
}

/// What an axis says, and where a point lies on it.
type Axis = (&'static str, fn(&CurvePoint) -> f64);

/// A named curve, and its points from left to right.
type Curve<'a> = (&'a str, Vec<(f64, f64)>);

/// Draws top-1 accuracy against the shares of multiply-adds and of time, as an SVG file.
///
/// # Errors
/// If drawing fails.
pub fn efficiency_chart(points: &[CurvePoint]) -> Result<String> {
    let mut svg = String::new();
    let drawn = draw(points, &mut svg);
    drawn.map_err(|error| Error::Input(format!("drawing a chart: {error}")))?;
    Ok(svg)
}

fn draw(
    points: &[CurvePoint],
    svg: &mut String,
) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::with_string(svg, (SIZE.0.into(), SIZE.1.into())).into_drawing_area();
    root.fill(&WHITE)?;
    let (charts, legend) = root.split_vertically(u32::from(SIZE.1 - LEGEND));
    let mut names: Vec<&str> = Vec::new();
    for point in points {
        if !names.contains(&point.series) {
            names.push(point.series);
        }
    }
    let halves = charts.split_evenly((1, 2));
    let axes: [Axis; 2] = [
        ("multiply-adds over the plain model's", |point| {
            point.macs_share
        }),
        ("time over the plain model's", |point| point.time_share),
    ];
    for (half, (label, x)) in halves.iter().zip(axes) {
        let curve = |name: &&'_ str| {
            let of_curve = points.iter().filter(|point| point.series == *name);
            let mut places: Vec<(f64, f64)> = of_curve
                .map(|point| (x(point), point.top1))
                .filter(|place| place.0.is_finite())
                .collect();
            places.sort_by(|a, b| a.0.total_cmp(&b.0));
            places
        };
        let curves: Vec<Curve> = names.iter().map(|name| (*name, curve(name))).collect();
        panel(half, &curves, label)?;
    }
    for (index, name) in (0u16..).zip(&names) {
        let (row, column) = (index / COLUMNS, index % COLUMNS);
        let at = (column * (SIZE.0 / COLUMNS) + 24, row * 20 + 12);
        let at = (i32::from(at.0), i32::from(at.1));
        legend.draw(&mark(at, index.into()))?;
        legend.draw(&Text::new(
            (*name).to_string(),
            (at.0 + 12, at.1 - 6),
            ("sans-serif", 13).into_font(),
        ))?;
    }
    root.present()?;
    Ok(())
}

fn panel(
    area: &DrawingArea<SVGBackend, plotters::coord::Shift>,
    curves: &[Curve],
    label: &str,
) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let places = || curves.iter().flat_map(|(_, places)| places.iter().copied());
    let (xs, ys) = (range(places().map(|p| p.0)), range(places().map(|p| p.1)));
    let mut chart = ChartBuilder::on(area)
        .margin(10)
        .x_label_area_size(38)
        .y_label_area_size(54)
        .build_cartesian_2d(xs, ys)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .label_style(("sans-serif", 13))
        .axis_desc_style(("sans-serif", 14))
        .x_label_formatter(&shortest)
        .y_label_formatter(&shortest)
        .x_desc(label)
        .y_desc("top-1")
        .draw()?;
    for (index, (_, places)) in curves.iter().enumerate() {
        let colour = PALETTE[index % PALETTE.len()];
        chart.draw_series(LineSeries::new(places.clone(), colour.stroke_width(2)))?;
        let marks = places.iter().map(|place| mark(*place, index));
        chart.draw_series(marks)?;
    }
    Ok(())
}

/// A dot of a curve's colour, open once the colours come again.
fn mark<P>(at: P, index: usize) -> Circle<P, i32> {
    let colour = PALETTE[index % PALETTE.len()];
    let style = if index < PALETTE.len() {
        colour.filled()
    } else {
        colour.stroke_width(2)
    };
    Circle::new(at, 4, style)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_curve_has_a_name_and_its_dots_in_both_charts() {
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
        let svg = efficiency_chart(&[point("a", 0.5), point("a", 0.2), unmeasured]).unwrap();
        // Dots of both charts, one of them without a time, and those of the legend.
        assert_eq!(svg.matches("<circle").count(), 3 + 2 + 2);
        for text in ["multiply-adds", "time over", "top-1"] {
            assert!(svg.contains(text));
        }
        efficiency_chart(&[]).unwrap();
    }
}
