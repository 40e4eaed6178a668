//! The weights of classes in the loss: the setting `class_weights`.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// How much the images of each class count in the cross entropy with the labels, as PyTorch's `weight`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub enum ClassWeights {
    /// Every class counts the same, however many training images it has: N / (K n_c) with N images, n_c
    /// of them in class c, and K classes that have images; 0 for the others. This is scikit-learn's
    /// definition.
    Balanced,
    /// One number for each class of the model.
    Given(Vec<f64>),
}

/// As in a file.
#[derive(Serialize, Deserialize)]
#[serde(
    untagged,
    expecting = "class_weights: expected \"balanced\" or a list of numbers"
)]
enum Written {
    Name(String),
    Numbers(Vec<f64>),
}

impl TryFrom<Written> for ClassWeights {
    type Error = String;

    fn try_from(written: Written) -> std::result::Result<Self, String> {
        match written {
            Written::Name(name) if name == "balanced" => Ok(Self::Balanced),
            Written::Name(name) => Err(format!(
                "class_weights: expected \"balanced\" or a list of numbers, found {name:?}"
            )),
            Written::Numbers(weights) => Ok(Self::Given(weights)),
        }
    }
}

impl From<ClassWeights> for Written {
    fn from(weights: ClassWeights) -> Self {
        match weights {
            ClassWeights::Balanced => Self::Name("balanced".into()),
            ClassWeights::Given(weights) => Self::Numbers(weights),
        }
    }
}

impl ClassWeights {
    /// Checks that given weights are those of `num_classes` classes.
    pub(crate) fn validate(&self, num_classes: usize) -> Result<()> {
        let Self::Given(weights) = self else {
            return Ok(());
        };
        let fail = |expected: &str, found: String| {
            let message = format!("class_weights: expected {expected}, found {found}");
            Err(Error::Setting(message))
        };
        if weights.len() != num_classes {
            let expected = format!("one number for each of {num_classes} classes");
            return fail(&expected, weights.len().to_string());
        }
        let fits = |weight: &f64| weight.is_finite() && *weight >= 0.0;
        if let Some(weight) = weights.iter().find(|weight| !fits(weight)) {
            return fail("numbers of at least 0", weight.to_string());
        }
        if weights.iter().all(|weight| *weight == 0.0) {
            return fail("a number above 0", "only zeros".into());
        }
        Ok(())
    }

    /// Returns the weight of each class, for training images with these labels.
    pub(crate) fn of(&self, labels: impl Iterator<Item = u32>, num_classes: usize) -> Vec<f32> {
        match self {
            Self::Given(weights) => weights.iter().map(|weight| *weight as f32).collect(),
            Self::Balanced => balanced(labels, num_classes),
        }
    }
}

fn balanced(labels: impl Iterator<Item = u32>, num_classes: usize) -> Vec<f32> {
    let mut counts = vec![0_u64; num_classes];
    for label in labels {
        if let Some(count) = counts.get_mut(label as usize) {
            *count += 1;
        }
    }
    let images: u64 = counts.iter().sum();
    let classes = counts.iter().filter(|count| **count > 0).count();
    let weight = |count: &u64| match count {
        0 => 0.0,
        count => images as f64 / (classes as f64 * *count as f64),
    };
    counts.iter().map(|count| weight(count) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::train_config::TrainConfig;

    #[test]
    fn balanced_weights_are_scikit_learns() {
        // compute_class_weight("balanced", classes=[0, 1, 3], y=labels): 6 / (3 * [3, 2, 1]).
        let labels = [0, 1, 0, 3, 1, 0];
        let weights = ClassWeights::Balanced.of(labels.into_iter(), 5);
        let expected = [6.0 / 9.0, 6.0 / 6.0, 0.0, 6.0 / 3.0, 0.0];
        for (weight, expected) in weights.into_iter().zip(expected) {
            assert!(
                (weight - expected as f32).abs() < 1e-6,
                "{weight} {expected}"
            );
        }
    }

    #[test]
    fn a_file_has_a_name_or_numbers() {
        let read = |text: &str| TrainConfig::from_toml(text);
        let numbers = read("class_weights = [1, 0.5]").unwrap();
        let given = ClassWeights::Given(vec![1.0, 0.5]);
        assert_eq!(numbers.class_weights, Some(given));
        let balanced = read("class_weights = \"balanced\"").unwrap();
        assert_eq!(balanced.class_weights, Some(ClassWeights::Balanced));
        for config in [numbers, balanced] {
            let text = config.to_toml().unwrap();
            assert_eq!(TrainConfig::from_toml(&text).unwrap(), config);
        }
        for text in ["class_weights = \"equal\"", "class_weights = 2"] {
            let error = read(text).unwrap_err().to_string();
            let expected = "class_weights: expected \"balanced\" or a list of numbers";
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn numbers_that_are_not_weights_of_the_classes_are_refused() {
        let given = |weights: &[f64]| ClassWeights::Given(weights.to_vec()).validate(2);
        given(&[0.0, 2.0]).unwrap();
        for weights in [
            &[1.0][..],
            &[1.0; 3],
            &[0.0; 2],
            &[1.0, -1.0],
            &[1.0, f64::NAN],
        ] {
            let error = given(weights).unwrap_err();
            assert!(error.is_input_error());
            assert!(error.to_string().starts_with("class_weights: "), "{error}");
        }
    }
}
