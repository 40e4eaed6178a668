//! The data set `fashion-scenes`: garments of Fashion-MNIST in clutter, of which most belong to the label's
//! class.
//!
//! ```text
//! scene = clutter, then 1, 3 or 5 garments over it      label: the class of 1 of 1, 2 of 3, 3 of 5
//! ```
//!
//! Scenes are built when they are asked for, from the garments that ship or from the whole Fashion-MNIST;
//! nothing is stored. How much there is to see is known for every scene: [`truth::SceneTruth`]. The rules
//! are in `docs/scenes.md` and their numbers in `protocol`.
//!
//! The majority is that of Megapixel MNIST (Katharopoulos and Fleuret 2019, arXiv 1905.03711), the clutter
//! that of cluttered translated MNIST (Mnih et al. 2014, arXiv 1406.6247).

mod garment;
mod garments;
mod layout;
pub(crate) mod open;
mod parts;
#[cfg(feature = "pictures")]
pub(crate) mod pictures;
pub(crate) mod protocol;
mod scene;
mod set;
pub(crate) mod truth;
