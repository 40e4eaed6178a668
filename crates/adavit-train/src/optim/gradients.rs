//! The gradients of one optimizer step: the mean over the images of one or more batches.
//!
//! ```text
//! mean <- (1 - n / (N + n)) mean + n / (N + n) g      N images before, n of this batch
//! ```
//! With one batch these are its gradients, to the last bit.

use candle_core::Tensor;
use candle_core::backprop::GradStore;

use crate::error::Result;
use crate::optim::parameters::Parameters;

/// The mean gradients of named parameters, in name order; none where no batch reached a parameter.
#[derive(Debug, Default)]
pub(crate) struct Gradients {
    means: Vec<Option<Tensor>>,
    images: u64,
}

impl Gradients {
    /// Adds the gradients of a batch of so many images.
    pub(crate) fn add(
        &mut self,
        parameters: &Parameters,
        grads: &GradStore,
        images: u64,
    ) -> Result<()> {
        // A gradient may still hold the graph that it came from.
        let found = parameters
            .iter()
            .map(|(_, var)| grads.get(var).map(Tensor::detach));
        if self.images == 0 {
            self.means = found.collect();
        } else {
            let share = images as f64 / (self.images + images) as f64;
            for (mean, grad) in self.means.iter_mut().zip(found) {
                *mean = mixed(mean.take(), grad, share)?;
            }
        }
        self.images += images;
        Ok(())
    }

    /// The number of images so far.
    pub(crate) fn images(&self) -> u64 {
        self.images
    }

    /// The means.
    pub(crate) fn means(&self) -> &[Option<Tensor>] {
        &self.means
    }
}

/// The mean of two gradients, of which the second has this share. One that is absent is zero.
fn mixed(mean: Option<Tensor>, grad: Option<Tensor>, share: f64) -> Result<Option<Tensor>> {
    let mean = mean.map(|mean| mean * (1.0 - share)).transpose()?;
    let grad = grad.map(|grad| grad * share).transpose()?;
    Ok(match (mean, grad) {
        (Some(mean), Some(grad)) => Some((mean + grad)?),
        (mean, grad) => mean.or(grad),
    })
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    #[test]
    fn gradients_are_averaged_by_images_and_absent_ones_are_zero() {
        let vars = ["a", "b", "c"].map(|name| {
            let var = Var::new(&[1f32, 1.0], &Device::Cpu).unwrap();
            (name.to_string(), var)
        });
        let parameters = Parameters::from_vars(vars.into());
        // Gradients of sum(factor * parameter).
        let grads = |factors: &[(&str, f64)]| {
            let terms: Vec<Tensor> = factors
                .iter()
                .map(|(name, factor)| {
                    (parameters.get(name).unwrap().as_tensor() * *factor).unwrap()
                })
                .collect();
            let loss = Tensor::stack(&terms, 0).unwrap().sum_all().unwrap();
            loss.backward().unwrap()
        };
        let mut gradients = Gradients::default();
        let mut add = |factors, images| {
            gradients.add(&parameters, &grads(factors), images).unwrap();
        };
        add(&[("a", 8.0)], 1);
        add(&[("a", 4.0), ("b", 4.0)], 3);
        add(&[("b", 1.0)], 4);
        assert_eq!(gradients.images(), 8);
        let means: Vec<Option<Vec<f32>>> = gradients
            .means()
            .iter()
            .map(|mean| mean.as_ref().map(|mean| mean.to_vec1().unwrap()))
            .collect();
        assert_eq!(means, [Some(vec![2.5, 2.5]), Some(vec![2.0, 2.0]), None]);
    }
}
