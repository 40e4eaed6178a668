//! Charts as SVG that takes the width and the colours of the page around it.

use std::ops::Range;

use plotters::coord::ranged1d::{Ranged, ValueFormatter};
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

use crate::error::{Error, Result};

/// Width and height of a chart in its own coordinates.
const SIZE: (u32, u32) = (480, 300);

/// Stands for the colour of the page's text until the chart is done.
const TEXT: RGBColor = RGBColor(1, 2, 3);
const TEXT_HEX: &str = "#010203";

/// Okabe and Ito's palette, whose colours are told apart by colour-blind people, on light and dark.
pub(super) const PALETTE: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(213, 94, 0),
];

/// A line, or dots.
#[derive(Debug, Clone)]
pub(super) struct Series {
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
}

/// What the axes say.
#[derive(Debug, Clone, Copy)]
pub(super) struct Labels {
    pub(super) x: &'static str,
    pub(super) y: &'static str,
}

/// A chart, and which colour stands for what.
#[derive(Debug, Clone)]
pub(super) struct Figure {
    pub(super) svg: String,
    /// A colour as CSS has it, and what it stands for.
    pub(super) legend: Vec<(String, String)>,
}

/// Draws lines over x.
pub(super) fn lines(series: &[Series], labels: Labels) -> Result<Figure> {
    draw(series, labels, |chart, series, colour| {
        chart.draw_series(LineSeries::new(
            series.points.clone(),
            colour.stroke_width(2),
        ))?;
        Ok(())
    })
}

/// Draws dots, one kind for each series; later ones lie above.
pub(super) fn dots(series: &[Series], labels: Labels) -> Result<Figure> {
    draw(series, labels, |chart, series, colour| {
        let dots = series.points.iter();
        chart.draw_series(dots.map(|point| Circle::new(*point, 5, colour.filled())))?;
        Ok(())
    })
}

/// As [`lines`], as a file of its own with the names at the ends of the lines.
pub(super) fn lines_on_white(series: &[Series], labels: Labels) -> Result<String> {
    let points = || {
        let points = series.iter().flat_map(|series| &series.points);
        points.copied()
    };
    let (xs, ys) = (range(points().map(|p| p.0)), range(points().map(|p| p.1)));
    // Room for the names.
    let xs = xs.start..xs.end + (xs.end - xs.start) * 0.25;
    let mut svg = String::new();
    let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
    let drawn = || -> Drawing<()> {
        root.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&root)
            .margin(8)
            .x_label_area_size(38)
            .y_label_area_size(54)
            .build_cartesian_2d(xs, ys)?;
        mesh(&mut chart, labels)?;
        for (index, series) in series.iter().enumerate() {
            let colour = PALETTE[index % PALETTE.len()];
            chart.draw_series(LineSeries::new(
                series.points.clone(),
                colour.stroke_width(2),
            ))?;
            if let Some(last) = series.points.last() {
                let font = ("sans-serif", 13).into_font().color(&colour);
                let name = Text::new(format!("  {}", series.name), *last, font);
                chart.draw_series([name])?;
            }
        }
        root.present()?;
        Ok(())
    };
    drawn().map_err(|error| Error::Input(format!("drawing a chart: {error}")))?;
    drop(root);
    Ok(svg.replace(TEXT_HEX, "#000000"))
}

type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;
type Drawing<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn draw(
    series: &[Series],
    labels: Labels,
    add: impl Fn(&mut Chart, &Series, RGBColor) -> Drawing<()>,
) -> Result<Figure> {
    let points = || {
        series
            .iter()
            .flat_map(|series| series.points.iter().copied())
    };
    let (xs, ys) = (range(points().map(|p| p.0)), range(points().map(|p| p.1)));
    let svg = framed(|root| {
        let mut chart = ChartBuilder::on(&root)
            .margin(8)
            .x_label_area_size(38)
            .y_label_area_size(54)
            .build_cartesian_2d(xs.clone(), ys.clone())?;
        mesh(&mut chart, labels)?;
        for (index, series) in series.iter().enumerate() {
            add(&mut chart, series, PALETTE[index % PALETTE.len()])?;
        }
        root.present()?;
        Ok(())
    })?;
    let named = series.iter().enumerate();
    let legend = named.map(|(index, series)| {
        let RGBColor(r, g, b) = PALETTE[index % PALETTE.len()];
        (format!("rgb({r},{g},{b})"), series.name.clone())
    });
    Ok(Figure {
        svg,
        legend: legend.collect(),
    })
}

/// Draws how many values fall into each of `bins` equal ranges.
pub(super) fn histogram(values: &[f64], bins: usize, labels: Labels) -> Result<Figure> {
    let xs = range(values.iter().copied());
    let step = (xs.end - xs.start) / bins as f64;
    let mut counts = vec![0usize; bins];
    for value in values {
        let bin = ((value - xs.start) / step) as usize;
        counts[bin.min(bins - 1)] += 1;
    }
    let most = counts.iter().copied().max().unwrap_or(0).max(1) as f64;
    let svg = framed(|root| {
        let mut chart = ChartBuilder::on(&root)
            .margin(8)
            .x_label_area_size(38)
            .y_label_area_size(54)
            .build_cartesian_2d(xs.clone(), 0.0..most * 1.05)?;
        mesh(&mut chart, labels)?;
        chart.draw_series(counts.iter().enumerate().map(|(bin, count)| {
            let left = xs.start + bin as f64 * step;
            let corners = [(left, 0.0), (left + step * 0.94, *count as f64)];
            Rectangle::new(corners, PALETTE[0].filled())
        }))?;
        root.present()?;
        Ok(())
    })?;
    Ok(Figure {
        svg,
        legend: Vec::new(),
    })
}

fn mesh<X, Y>(
    chart: &mut ChartContext<SVGBackend, Cartesian2d<X, Y>>,
    labels: Labels,
) -> Drawing<()>
where
    X: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let font = |size: u32| ("sans-serif", size).into_font().color(&TEXT);
    chart
        .configure_mesh()
        .axis_style(TEXT)
        .bold_line_style(TEXT.mix(0.15))
        .light_line_style(TRANSPARENT)
        .label_style(font(13))
        .axis_desc_style(font(14))
        .x_label_formatter(&shortest)
        .y_label_formatter(&shortest)
        .x_desc(labels.x)
        .y_desc(labels.y)
        .draw()?;
    Ok(())
}

/// A number without zeros that say nothing.
#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature that plotters calls"
)]
pub(super) fn shortest(value: &f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

/// The least range that holds all values, a little wider, never empty.
pub(super) fn range(values: impl Iterator<Item = f64>) -> Range<f64> {
    let (low, high) = values
        .filter(|value| value.is_finite())
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
            (low.min(value), high.max(value))
        });
    if low > high {
        return 0.0..1.0;
    }
    let margin = ((high - low) * 0.04).max(high.abs() * 1e-3).max(1e-9);
    low - margin..high + margin
}

/// Gives a drawing area to `draw`, and makes of it what a page can hold.
fn framed(
    draw: impl FnOnce(DrawingArea<SVGBackend, plotters::coord::Shift>) -> Drawing<()>,
) -> Result<String> {
    let mut svg = String::new();
    let drawn = draw(SVGBackend::with_string(&mut svg, SIZE).into_drawing_area());
    drawn.map_err(|error| Error::Input(format!("drawing a chart: {error}")))?;
    let fixed = format!("width=\"{}\" height=\"{}\" ", SIZE.0, SIZE.1);
    Ok(svg
        .replacen(&fixed, "", 1)
        .replace(TEXT_HEX, "currentColor"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LABELS: Labels = Labels { x: "x", y: "y" };

    #[test]
    fn charts_take_width_and_colour_from_the_page() {
        let series = |name: &str| Series {
            name: name.into(),
            points: vec![(1.0, 2.0), (2.0, 1.0)],
        };
        for Figure { svg, legend } in [
            lines(&[series("a"), series("b")], LABELS).unwrap(),
            dots(&[series("a")], LABELS).unwrap(),
            histogram(&[1.0, 1.0, 5.0], 4, LABELS).unwrap(),
            // Nothing to draw, and all at one place.
            lines(&[], LABELS).unwrap(),
            histogram(&[3.0], 4, LABELS).unwrap(),
        ] {
            assert!(svg.starts_with("<svg viewBox"), "{}", &svg[..60]);
            assert!(legend.len() <= 2);
            assert!(svg.contains("currentColor") && !svg.contains(TEXT_HEX));
        }
    }
}
