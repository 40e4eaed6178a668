//! Charts as SVG: axes that fit their data, series that stay visible where they overlap, and a legend
//! that names each of them.

pub(super) mod axis;
pub(super) mod canvas;
pub(super) mod figure;
pub(super) mod frame;
pub(super) mod style;
