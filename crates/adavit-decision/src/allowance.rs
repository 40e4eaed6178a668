//! What a call allows each of its images to cost.

/// What one forward allows each image to cost. The default allows everything.
///
/// It is an argument of a call, not a state of the model: the same weights serve any allowance.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Allowance {
    /// The most `exact` MACs of any image: see [`Ceiling`](crate::Ceiling).
    pub max_macs: Option<u64>,
}

impl Allowance {
    /// Returns the allowance of at most `max_macs` for each image.
    pub fn of_macs(max_macs: u64) -> Self {
        Self {
            max_macs: Some(max_macs),
        }
    }
}
