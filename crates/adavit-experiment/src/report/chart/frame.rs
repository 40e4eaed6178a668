//! The frame of a chart: its axes with ticks, grid and descriptions, and where a value lies in it.

use crate::report::chart::axis::Axis;
use crate::report::chart::canvas::{Anchor, Canvas, Place};

/// Left of the frame: labels of ticks, and the description of y.
const LEFT: f64 = 66.0;
/// Right of it.
const RIGHT: f64 = 14.0;
/// Above it; notes have a line of their own.
const TOP: f64 = 22.0;
/// Below it: labels of ticks, and the description of x.
const BELOW: f64 = 44.0;

/// What the axes are called.
#[derive(Debug, Clone, Copy)]
pub(in crate::report) struct Labels {
    pub(in crate::report) x: &'static str,
    pub(in crate::report) y: &'static str,
}

/// A value of x that is pointed out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::report) struct Note {
    pub(in crate::report) at: f64,
    pub(in crate::report) text: &'static str,
}

/// The frame of one chart.
#[derive(Debug, Clone)]
pub(in crate::report) struct Frame {
    /// Its upper left corner.
    from: Place,
    /// Its lower right corner.
    to: Place,
    x: Axis,
    y: Axis,
}

impl Frame {
    /// The frame of a chart that is `width` times `height` with its labels.
    pub(in crate::report) fn new(left: f64, size: Place, x: Axis, y: Axis) -> Self {
        Self {
            from: Place {
                x: left + LEFT,
                y: TOP,
            },
            to: Place {
                x: left + size.x - RIGHT,
                y: size.y - BELOW,
            },
            x,
            y,
        }
    }

    /// Where a value of both axes lies.
    pub(in crate::report) fn place(&self, x: f64, y: f64) -> Place {
        let (from, to) = (self.from, self.to);
        Place {
            x: from.x + (to.x - from.x) * self.x.share(x),
            y: to.y + (from.y - to.y) * self.y.share(y),
        }
    }

    /// Draws axes, ticks, grid and descriptions.
    pub(in crate::report) fn draw(&self, canvas: &mut Canvas, labels: Labels) {
        let (from, to) = (self.from, self.to);
        for tick in &self.x.ticks {
            let x = self.place(tick.at, self.y.low).x;
            let (above, below) = (Place { x, y: from.y }, Place { x, y: to.y });
            canvas.line(above, below, 0.15);
            let at = Place { x, y: to.y + 17.0 };
            canvas.text(at, Anchor::Middle, &tick.label);
        }
        for tick in &self.y.ticks {
            let y = self.place(self.x.low, tick.at).y;
            let (left, right) = (Place { x: from.x, y }, Place { x: to.x, y });
            canvas.line(left, right, 0.15);
            let at = Place {
                x: from.x - 7.0,
                y: y + 4.5,
            };
            canvas.text(at, Anchor::End, &tick.label);
        }
        let corner = Place { x: from.x, y: to.y };
        canvas.line(from, corner, 1.0);
        canvas.line(corner, to, 1.0);
        let middle = Place {
            x: f64::midpoint(from.x, to.x),
            y: f64::midpoint(from.y, to.y),
        };
        let below = Place {
            y: to.y + 37.0,
            ..middle
        };
        canvas.text(below, Anchor::Middle, labels.x);
        let beside = Place {
            x: from.x - LEFT + 14.0,
            ..middle
        };
        canvas.text_upwards(beside, Anchor::Middle, labels.y);
    }

    /// Draws a dashed line at a value of x, with its text above.
    pub(in crate::report) fn note(&self, canvas: &mut Canvas, note: &Note) {
        let share = self.x.share(note.at);
        if !(0.0..=1.0).contains(&share) {
            return;
        }
        let x = self.place(note.at, self.y.low).x;
        let (above, below) = (Place { x, y: self.from.y }, Place { x, y: self.to.y });
        canvas.dashed(above, below, 0.8, "5 4");
        let anchor = if share > 0.5 {
            Anchor::End
        } else {
            Anchor::Start
        };
        let at = Place {
            x,
            y: self.from.y - 7.0,
        };
        canvas.text(at, anchor, note.text);
    }
}
