//! What a call allows each of its images to cost.

use crate::budget::Budgets;

/// What one forward allows each image to cost. The default allows everything.
///
/// It is an argument of a call, not a state of the model: the same weights serve any allowance.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Allowance {
    /// The most `exact` MACs of any image: see [`Ceiling`](crate::Ceiling).
    pub max_macs: Option<u64>,
    /// What the decision networks are asked to spend, if they take a budget. Without, it is that of
    /// the model's [allocator](crate::AllocatorConfig), or else
    /// [`DecisionConfig::budget_input`](crate::DecisionConfig::budget_input).
    pub budget: Option<Budgets>,
}

impl Allowance {
    /// Returns the allowance of at most `max_macs` for each image.
    pub fn of_macs(max_macs: u64) -> Self {
        Self {
            max_macs: Some(max_macs),
            budget: None,
        }
    }

    /// Returns the allowance that asks for one budget for every image.
    pub fn of_budget(budget: f64) -> Self {
        Self {
            max_macs: None,
            budget: Some(Budgets::Same(budget)),
        }
    }
}
