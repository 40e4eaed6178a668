pub(crate) mod affine;
mod blend;
mod blur;
mod conv_blur;
mod hue;
pub(crate) mod op;
mod sample;
mod table;
