//! Exponential moving average of the parameters.
//!
//! ```text
//! e <- e + (1 - d) (p - e),   d = min(decay, (1 + s) / (10 + s))
//! ```
//! s optimizer steps done. The second bound lets the average follow closely at first (timm's and
//! TensorFlow's warm-up). (Polyak & Juditsky, Acceleration of stochastic approximation, 1992.)

use std::collections::BTreeMap;

use candle_core::Tensor;

use crate::error::Result;
use crate::optim::parameters::{Parameters, copy_like, match_by_name};
use crate::ranges::Ranges;

/// A moving average of every parameter.
///
/// Its tensors never share storage with a variable, and an update replaces them: a tensor that
/// was handed out keeps its values.
#[derive(Debug, Clone)]
pub struct Ema {
    decay: f64,
    tensors: BTreeMap<String, Tensor>,
}

impl Ema {
    /// Starts the average at the present values.
    ///
    /// # Errors
    /// [`Error::Setting`](crate::Error::Setting) unless `decay` is in [0, 1].
    pub fn new(decay: f64, parameters: &Parameters) -> Result<Self> {
        Ranges::of("").ratios([("ema_decay", decay)])?;
        let tensors = parameters.to_tensors()?;
        Ok(Self { decay, tensors })
    }

    /// Moves the average towards the present values, after `step` optimizer steps.
    ///
    /// # Errors
    /// [`Error::Mismatch`](crate::Error::Mismatch) if the names or shapes are not those of [`Ema::new`].
    pub fn update(&mut self, parameters: &Parameters, step: u64) -> Result<()> {
        let weight = 1.0 - self.decay_at(step);
        let vars: BTreeMap<String, Tensor> = parameters
            .iter()
            .map(|(name, var)| (name.to_string(), var.as_detached_tensor()))
            .collect();
        for (name, value) in match_by_name("parameters of the average", self.named(), &vars)? {
            let average = &self.tensors[&name];
            let moved = (average + (value - average)?.affine(weight, 0.0)?)?;
            self.tensors.insert(name, moved);
        }
        Ok(())
    }

    /// Returns the averages by name; they are also the state that [`Ema::load`] takes.
    pub fn tensors(&self) -> &BTreeMap<String, Tensor> {
        &self.tensors
    }

    /// Replaces the averages by copies of `tensors`.
    ///
    /// # Errors
    /// [`Error::Mismatch`](crate::Error::Mismatch) lists every name that is missing, unused, or of another shape or dtype;
    /// nothing has changed then.
    pub fn load<'a>(
        &mut self,
        tensors: impl IntoIterator<Item = (&'a String, &'a Tensor)>,
    ) -> Result<()> {
        let loaded = match_by_name("averages", self.named(), tensors)?
            .into_iter()
            .map(|(name, tensor)| {
                let copy = copy_like(tensor, &self.tensors[&name])?;
                Ok((name, copy))
            })
            .collect::<Result<_>>()?;
        self.tensors = loaded;
        Ok(())
    }

    fn decay_at(&self, step: u64) -> f64 {
        let step = step as f64;
        self.decay.min((1.0 + step) / (10.0 + step))
    }

    fn named(&self) -> impl Iterator<Item = (String, &Tensor)> {
        self.tensors
            .iter()
            .map(|(name, tensor)| (name.clone(), tensor))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    fn parameters(data: &[f64]) -> Parameters {
        let var = Var::new(data, &Device::Cpu).unwrap();
        Parameters::from_vars([("w".to_string(), var)].into())
    }

    fn set(parameters: &Parameters, data: &[f64]) {
        let tensor = Tensor::new(data, &Device::Cpu).unwrap();
        parameters.get("w").unwrap().set(&tensor).unwrap();
    }

    fn values(ema: &Ema) -> Vec<f64> {
        ema.tensors()["w"].to_vec1().unwrap()
    }

    #[test]
    fn a_new_average_does_not_follow_the_variable() {
        let parameters = parameters(&[1.0, 2.0]);
        let ema = Ema::new(0.99, &parameters).unwrap();
        set(&parameters, &[5.0, 6.0]);
        assert_eq!(values(&ema), [1.0, 2.0]);
    }

    #[test]
    fn an_average_with_decay_zero_is_a_copy_of_the_variable() {
        let parameters = parameters(&[1.0, 2.0]);
        let mut ema = Ema::new(0.0, &parameters).unwrap();
        set(&parameters, &[5.0, 6.0]);
        ema.update(&parameters, 1).unwrap();
        set(&parameters, &[7.0, 8.0]);
        assert_eq!(values(&ema), [5.0, 6.0]);
    }

    #[test]
    fn a_tensor_handed_out_keeps_its_values() {
        let parameters = parameters(&[1.0]);
        let mut ema = Ema::new(0.5, &parameters).unwrap();
        let before = ema.tensors()["w"].clone();
        set(&parameters, &[3.0]);
        ema.update(&parameters, 100).unwrap();
        assert_eq!(before.to_vec1::<f64>().unwrap(), [1.0]);
        assert_eq!(values(&ema), [2.0]);
    }

    #[test]
    fn the_decay_warms_up_with_the_step() {
        let parameters = parameters(&[0.0]);
        let ema = Ema::new(0.9, &parameters).unwrap();
        assert_eq!(ema.decay_at(0), 0.1);
        assert_eq!(ema.decay_at(8), 0.5);
        assert_eq!(ema.decay_at(1000), 0.9);
    }

    #[test]
    fn a_loaded_average_continues_bit_for_bit() {
        let parameters = parameters(&[0.3, -0.7]);
        let mut ema = Ema::new(0.9, &parameters).unwrap();
        set(&parameters, &[0.1, 0.2]);
        ema.update(&parameters, 3).unwrap();
        let mut resumed = Ema::new(0.9, &parameters).unwrap();
        resumed.load(ema.tensors()).unwrap();
        set(&parameters, &[0.7, -0.4]);
        ema.update(&parameters, 4).unwrap();
        resumed.update(&parameters, 4).unwrap();
        assert_eq!(values(&ema), values(&resumed));
    }

    #[test]
    fn other_names_and_a_decay_out_of_range_are_refused() {
        let parameters = parameters(&[0.0]);
        let mut ema = Ema::new(0.9, &parameters).unwrap();
        let error = ema.load(&BTreeMap::new()).unwrap_err().to_string();
        assert_eq!(error, "averages do not match; missing: w");
        let others = Parameters::from_vars(BTreeMap::new());
        assert!(ema.update(&others, 0).is_err());
        assert!(Ema::new(1.5, &parameters).is_err());
    }
}
