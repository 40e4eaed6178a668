//! Figures of one chart: lines, marks or bars, and what a legend says of them.

use crate::report::chart::axis::{Axis, Values, ends};
use crate::report::chart::canvas::{Anchor, Canvas, Ground, Place, TEXT};
use crate::report::chart::frame::{Frame, Labels, Note};
use crate::report::chart::style::{PALETTE, SAMPLE, Style};

/// Width and height of a chart in its own coordinates.
const SIZE: Place = Place { x: 460.0, y: 290.0 };
/// Marks on a line, about.
const MOST_MARKS: usize = 8;
/// Height of a row of a legend.
const ROW: f64 = 20.0;

/// How a series is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::report) enum Form {
    /// A line, with marks on some of its points.
    Line,
    /// A line, with a mark on each point.
    Curve,
    /// Marks alone.
    Marks,
    /// Small marks alone.
    SmallMarks,
}

impl Form {
    fn has_line(self) -> bool {
        matches!(self, Self::Line | Self::Curve)
    }

    fn radius(self) -> f64 {
        match self {
            Self::Line | Self::Curve => 4.0,
            Self::Marks => 6.0,
            Self::SmallMarks => 3.0,
        }
    }

    /// Which points of a series have marks. Each line has them at other points than the lines
    /// before it, so that lines on one another show.
    fn marks(self, index: usize, all: usize, points: usize) -> impl Iterator<Item = usize> {
        let every = match self {
            Self::Line => points.div_ceil(MOST_MARKS).max(all.min(points / 2)).max(1),
            Self::Curve | Self::Marks | Self::SmallMarks => 1,
        };
        (index * every / all..points).step_by(every)
    }
}

/// Values of y over x under one name.
#[derive(Debug, Clone)]
pub(in crate::report) struct Series {
    pub(in crate::report) name: String,
    /// x, then y; what is not finite is left out.
    pub(in crate::report) points: Vec<(f64, f64)>,
    pub(in crate::report) form: Form,
}

impl Series {
    /// The points that can be drawn.
    fn finite(&self) -> impl Iterator<Item = (f64, f64)> {
        let points = self.points.iter().copied();
        points.filter(|(x, y)| x.is_finite() && y.is_finite())
    }
}

/// A chart to be drawn.
#[derive(Debug, Clone)]
pub(in crate::report) struct Chart<'a> {
    pub(in crate::report) series: &'a [Series],
    pub(in crate::report) labels: Labels,
    /// What the values of x are.
    pub(in crate::report) x: Values,
    pub(in crate::report) note: Option<Note>,
}

/// A chart for a page, and its legend.
#[derive(Debug, Clone)]
pub(in crate::report) struct Figure {
    pub(in crate::report) svg: String,
    pub(in crate::report) legend: Vec<Entry>,
}

/// A series in a legend.
#[derive(Debug, Clone)]
pub(in crate::report) struct Entry {
    /// Its line and mark, as SVG.
    pub(in crate::report) sample: String,
    pub(in crate::report) name: String,
}

impl Chart<'_> {
    /// The chart for a page.
    pub(in crate::report) fn figure(&self) -> Figure {
        let mut canvas = Canvas::new(SIZE.x, SIZE.y, Ground::Page);
        self.draw(&mut canvas, 0.0, SIZE);
        let entries = self.series.iter().enumerate().map(|(index, series)| {
            let mut canvas = Canvas::new(SAMPLE.0, SAMPLE.1, Ground::Page);
            let corner = Place { x: 0.0, y: 0.0 };
            Style::of(index).sample(&mut canvas, corner, series.form.has_line());
            Entry {
                sample: canvas.finish(),
                name: series.name.clone(),
            }
        });
        Figure {
            svg: canvas.finish(),
            legend: entries.collect(),
        }
    }

    /// The chart as a file of its own, its legend below.
    pub(in crate::report) fn file(&self) -> String {
        let names: Vec<&str> = self.series.iter().map(|s| s.name.as_str()).collect();
        let legend = Legend {
            names: &names,
            columns: 2,
        };
        let mut canvas = Canvas::new(SIZE.x, SIZE.y + legend.height(), Ground::White);
        self.draw(&mut canvas, 0.0, SIZE);
        legend.draw(&mut canvas, SIZE);
        canvas.finish()
    }

    /// Draws the chart, whose left side is at `left`, without a legend.
    pub(in crate::report) fn draw(&self, canvas: &mut Canvas, left: f64, size: Place) {
        let points = || self.series.iter().flat_map(Series::finite);
        let x = Axis::of(points().map(|point| point.0), self.x);
        let y = Axis::of(points().map(|point| point.1), Values::Real);
        let frame = Frame::new(left, size, x, y);
        frame.draw(canvas, self.labels);
        if let Some(note) = &self.note {
            frame.note(canvas, note);
        }
        for (index, series) in self.series.iter().enumerate() {
            let places: Vec<Place> = series.finite().map(|(x, y)| frame.place(x, y)).collect();
            let style = Style::of(index);
            if series.form.has_line() {
                style.line(canvas, &places);
            }
            let marks = series.form.marks(index, self.series.len(), places.len());
            for place in marks.filter_map(|at| places.get(at)) {
                style.mark(canvas, *place, series.form.radius());
            }
        }
    }
}

/// Names with the samples of their lines, in rows.
#[derive(Debug, Clone, Copy)]
pub(in crate::report) struct Legend<'a> {
    pub(in crate::report) names: &'a [&'a str],
    pub(in crate::report) columns: usize,
}

impl Legend<'_> {
    pub(in crate::report) fn height(&self) -> f64 {
        ROW * self.names.len().div_ceil(self.columns) as f64 + ROW / 2.0
    }

    /// Draws the legend below charts of this size.
    pub(in crate::report) fn draw(&self, canvas: &mut Canvas, charts: Place) {
        let column = (charts.x - 2.0 * ROW) / self.columns as f64;
        for (index, name) in self.names.iter().enumerate() {
            let at = Place {
                x: ROW + column * (index % self.columns) as f64,
                y: charts.y + ROW / 4.0 + ROW * (index / self.columns) as f64,
            };
            Style::of(index).sample(canvas, at, true);
            let text = Place {
                x: at.x + SAMPLE.0 + 6.0,
                y: at.y + f64::midpoint(SAMPLE.1, TEXT) - 1.5,
            };
            canvas.text(text, Anchor::Start, name);
        }
    }
}

/// Draws how many values fall into each of `bins` equal ranges.
pub(in crate::report) fn histogram(values: &[f64], bins: usize, labels: Labels) -> Figure {
    let x = Axis::of(values.iter().copied(), Values::Real);
    let (low, high) = ends(values.iter().copied()).unwrap_or((x.low, x.high));
    // Equal values have one bar in the middle.
    let (low, high) = if high > low {
        (low, high)
    } else {
        (x.low, x.high)
    };
    let step = (high - low) / bins as f64;
    let mut counts = vec![0usize; bins];
    for value in values.iter().filter(|value| value.is_finite()) {
        counts[(((value - low) / step) as usize).min(bins - 1)] += 1;
    }
    let most = counts.iter().copied().max().unwrap_or(0).max(1) as f64;
    let frame = Frame::new(0.0, SIZE, x, Axis::from_zero(most, Values::Whole));
    let mut canvas = Canvas::new(SIZE.x, SIZE.y, Ground::Page);
    frame.draw(&mut canvas, labels);
    for (bin, count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
        let left = low + bin as f64 * step;
        let from = frame.place(left, *count as f64);
        let to = frame.place(left + step * 0.94, 0.0);
        canvas.add(&format!(
            "<rect x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{}\"/>",
            from.x,
            from.y,
            to.x - from.x,
            to.y - from.y,
            PALETTE[0]
        ));
    }
    Figure {
        svg: canvas.finish(),
        legend: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LABELS: Labels = Labels { x: "x", y: "y" };

    fn series(name: &str, points: &[(f64, f64)]) -> Series {
        Series {
            name: name.into(),
            points: points.to_vec(),
            form: Form::Line,
        }
    }

    fn chart(series: &[Series]) -> Chart<'_> {
        Chart {
            series,
            labels: LABELS,
            x: Values::Real,
            note: None,
        }
    }

    #[test]
    fn every_series_has_a_legend_entry_and_its_own_marks() {
        // Two lines on one another, and one of a single point.
        let points = [(1.0, 2.0), (2.0, 1.0), (3.0, 1.5)];
        let all = [
            series("a", &points),
            series("b", &points),
            series("c", &[(2.0, 2.0)]),
        ];
        let figure = chart(&all).figure();
        let names: Vec<&str> = figure.legend.iter().map(|e| e.name.as_str()).collect();
        assert_eq!(names, ["a", "b", "c"]);
        for colour in &PALETTE[..3] {
            let marks = figure.svg.lines().filter(|line| line.contains("mark"));
            assert!(marks.filter(|line| line.contains(colour)).count() > 0);
        }
        let file = chart(&all).file();
        assert!(names.iter().all(|name| file.contains(&format!(">{name}<"))));
    }

    #[test]
    fn lines_on_one_another_have_their_marks_at_different_points() {
        let points: Vec<(f64, f64)> = (0..40).map(|i| (f64::from(i), 1.0)).collect();
        let svg = chart(&[series("a", &points), series("b", &points)])
            .figure()
            .svg;
        let marks: Vec<&str> = svg
            .lines()
            .filter(|line| line.contains("class=\"mark\""))
            .filter_map(|line| line.split("translate(").nth(1)?.split(')').next())
            .collect();
        assert_eq!(marks.len(), 16);
        let different: std::collections::BTreeSet<&str> = marks.iter().copied().collect();
        assert_eq!(different.len(), 16);
    }

    #[test]
    fn a_chart_of_nothing_has_axes() {
        let none = [series("a", &[(1.0, f64::NAN)])];
        for svg in [
            chart(&[]).figure().svg,
            chart(&none).figure().svg,
            histogram(&[], 4, LABELS).svg,
        ] {
            assert!(svg.contains("<text") && !svg.contains("NaN"), "{svg}");
        }
    }

    #[test]
    fn bars_count_every_value() {
        let figure = histogram(&[1.0, 1.0, 5.0, 3.0], 4, LABELS);
        assert_eq!(figure.svg.matches("<rect").count(), 3);
        assert_eq!(
            histogram(&[3.0; 5], 4, LABELS).svg.matches("<rect").count(),
            1
        );
    }

    #[test]
    fn a_note_is_drawn_where_the_data_are() {
        let all = [series("a", &[(1.0, 1.0), (9.0, 2.0)])];
        let noted = |at| {
            let note = Some(Note { at, text: "here" });
            Chart {
                note,
                ..chart(&all)
            }
            .figure()
            .svg
        };
        assert!(noted(4.0).contains(">here<"));
        assert!(!noted(40.0).contains(">here<"));
    }
}
