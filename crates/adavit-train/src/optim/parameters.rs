//! The trained variables of a model, in the order of their names.
//!
//! candle's `VarMap` iterates in an order that changes from process to process. A global gradient
//! norm, an optimizer state or a snapshot needs one order: here it is always by name.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use candle_core::{Tensor, Var};
use candle_nn::VarMap;

use crate::error::{Error, Result};

/// The trained variables by name, iterated in name order.
///
/// A clone refers to the same variables.
///
/// ```
/// use candle_core::{DType, Device, Var};
/// # use adavit_train::Parameters;
/// let weight = Var::zeros((3, 2), DType::F32, &Device::Cpu)?;
/// let bias = Var::zeros(3, DType::F32, &Device::Cpu)?;
/// let vars = [("head.weight".to_string(), weight), ("head.bias".to_string(), bias)];
/// let parameters = Parameters::from_vars(vars.into());
/// let names: Vec<&str> = parameters.iter().map(|(name, _)| name).collect();
/// assert_eq!(names, ["head.bias", "head.weight"]);
/// assert_eq!(parameters.num_elements(), 9);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Parameters {
    vars: BTreeMap<String, Var>,
}

impl Parameters {
    /// Returns the registry of these variables.
    pub fn from_vars(vars: BTreeMap<String, Var>) -> Self {
        Self { vars }
    }

    /// Returns the registry of every variable of `map`; later additions to `map` are not seen.
    pub fn from_varmap(map: &VarMap) -> Self {
        // No code leaves the map half-changed, so a panic elsewhere does not spoil it.
        let vars = map.data().lock().unwrap_or_else(PoisonError::into_inner);
        let vars = vars.iter().map(|(name, var)| (name.clone(), var.clone()));
        Self::from_vars(vars.collect())
    }

    /// Iterates over names and variables in name order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Var)> {
        self.vars.iter().map(|(name, var)| (name.as_str(), var))
    }

    /// Returns the variable with this name.
    pub fn get(&self, name: &str) -> Option<&Var> {
        self.vars.get(name)
    }

    /// Returns the number of variables.
    pub fn len(&self) -> usize {
        self.vars.len()
    }

    /// Returns whether there is no variable.
    pub fn is_empty(&self) -> bool {
        self.vars.is_empty()
    }

    /// Returns the number of elements of all variables together.
    pub fn num_elements(&self) -> usize {
        self.vars.values().map(|var| var.elem_count()).sum()
    }

    /// Copies every variable; a later training step does not change the copies.
    pub fn to_tensors(&self) -> Result<BTreeMap<String, Tensor>> {
        self.iter()
            .map(|(name, var)| Ok((name.to_string(), copy_like(var, var)?)))
            .collect()
    }

    /// Sets every variable from the tensor with its name.
    ///
    /// # Errors
    /// [`Error::Mismatch`] lists every name that is missing, unused, or of another shape or dtype;
    /// no variable has changed then.
    pub fn load<'a>(
        &self,
        tensors: impl IntoIterator<Item = (&'a String, &'a Tensor)>,
    ) -> Result<()> {
        let expected = self
            .iter()
            .map(|(name, var)| (name.to_string(), var.as_tensor()));
        for (name, tensor) in match_by_name("parameters", expected, tensors)? {
            let var = &self.vars[&name];
            var.set(&copy_like(tensor, var)?)?;
        }
        Ok(())
    }
}

/// Which learning rate and weight decay a parameter gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// A weight of the backbone: its learning rate, decays.
    Decay,
    /// A bias, norm, class token or position embedding of the backbone: does not decay.
    NoDecay,
    /// A weight of a decision network: the decision learning rate, decays.
    Decision,
    /// A bias or norm of a decision network: the decision learning rate, does not decay.
    DecisionNoDecay,
}

impl Group {
    /// Returns the group of the parameter with this name and rank.
    ///
    /// Decision networks are `head_select`, `layer_select`, `token_select` and `norm_policy`.
    /// Tensors of rank 0 and 1, biases, the maps from budgets, norms, `cls_token` and `pos_embed` do not decay; nor do a
    /// performer's random features `w`, which get no gradient, and so stay as they are.
    ///
    /// ```
    /// # use adavit_train::Group;
    /// assert_eq!(Group::of("blocks.1.head_select.mlp_head.weight", 2), Group::Decision);
    /// assert_eq!(Group::of("pos_embed", 3), Group::NoDecay);
    /// ```
    pub fn of(name: &str, rank: usize) -> Self {
        let names_any = |parts: &[&str]| parts.iter().any(|part| name.contains(part));
        let decision = adavit_model::is_decision_tensor(name);
        let fixed = rank <= 1
            || name.ends_with("bias")
            || adavit_model::is_random_features(name)
            || adavit_model::is_budget_tensor(name)
            || names_any(&["norm", "cls_token", "pos_embed"]);
        match (decision, fixed) {
            (false, false) => Self::Decay,
            (false, true) => Self::NoDecay,
            (true, false) => Self::Decision,
            (true, true) => Self::DecisionNoDecay,
        }
    }

    /// Returns whether the parameter belongs to a decision network.
    pub fn is_decision(self) -> bool {
        matches!(self, Self::Decision | Self::DecisionNoDecay)
    }

    /// Returns whether weight decay applies.
    pub fn decays(self) -> bool {
        matches!(self, Self::Decay | Self::Decision)
    }
}

/// Whether the parameter with this name learns while the backbone is frozen: it is of the head, or of a
/// decision network.
pub(crate) fn learns_on_frozen(name: &str) -> bool {
    let first = name.split('.').next();
    let head = first.is_some_and(|first| ["head", "head_dist"].contains(&first));
    head || adavit_model::is_decision_tensor(name)
}

/// Pairs each expected name with the given tensor of that name, shape and dtype.
///
/// Fails with the list of everything that does not fit; `what` names the set of tensors in the
/// message.
pub(crate) fn match_by_name<'a, 'b>(
    what: &str,
    expected: impl IntoIterator<Item = (String, &'b Tensor)>,
    given: impl IntoIterator<Item = (&'a String, &'a Tensor)>,
) -> Result<BTreeMap<String, &'a Tensor>> {
    let mut unused: BTreeMap<&str, &Tensor> = given
        .into_iter()
        .map(|(name, tensor)| (name.as_str(), tensor))
        .collect();
    let (mut matched, mut missing, mut misfits) = (BTreeMap::new(), Vec::new(), Vec::new());
    for (name, like) in expected {
        match unused.remove(name.as_str()) {
            None => missing.push(name),
            Some(found) if found.shape() == like.shape() && found.dtype() == like.dtype() => {
                matched.insert(name, found);
            }
            Some(found) => {
                misfits.push(format!(
                    "{name} (expected {}, found {})",
                    dtype_and_shape(like),
                    dtype_and_shape(found)
                ));
            }
        }
    }
    let unused: Vec<String> = unused.into_keys().map(str::to_string).collect();
    let lists = [
        ("missing", missing),
        ("unused", unused),
        ("misshapen", misfits),
    ];
    let faults: Vec<String> = lists
        .into_iter()
        .filter(|(_, names)| !names.is_empty())
        .map(|(fault, names)| format!("{fault}: {}", names.join(", ")))
        .collect();
    if faults.is_empty() {
        Ok(matched)
    } else {
        Err(Error::Mismatch(format!(
            "{what} do not match; {}",
            faults.join("; ")
        )))
    }
}

/// Copies `tensor` to the device of `like`, without history and never sharing storage.
pub(crate) fn copy_like(tensor: &Tensor, like: &Tensor) -> Result<Tensor> {
    Ok(tensor
        .detach()
        .to_device(like.device())?
        .force_contiguous()?)
}

fn dtype_and_shape(tensor: &Tensor) -> String {
    format!("{} {:?}", tensor.dtype().as_str(), tensor.dims())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use candle_core::{DType, Device};

    use super::*;

    fn parameters() -> Parameters {
        let var = |data: &[f32]| Var::new(data, &Device::Cpu).unwrap();
        let vars = [
            ("b".to_string(), var(&[3.0])),
            ("a".to_string(), var(&[1.0, 2.0])),
        ];
        Parameters::from_vars(vars.into())
    }

    fn values(tensor: &Tensor) -> Vec<f32> {
        tensor.to_vec1().unwrap()
    }

    #[test]
    fn a_varmap_is_read_in_name_order() {
        let map = VarMap::new();
        for name in ["c", "a", "d", "b"] {
            let var = Var::zeros(2, DType::F32, &Device::Cpu).unwrap();
            map.data().lock().unwrap().insert(name.to_string(), var);
        }
        let parameters = Parameters::from_varmap(&map);
        let names: Vec<&str> = parameters.iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["a", "b", "c", "d"]);
        assert_eq!((parameters.len(), parameters.num_elements()), (4, 8));
    }

    #[test]
    fn copies_do_not_follow_the_variables() {
        let parameters = parameters();
        let copies = parameters.to_tensors().unwrap();
        let var = parameters.get("a").unwrap();
        var.set(&Tensor::new(&[9f32, 9.0], &Device::Cpu).unwrap())
            .unwrap();
        assert_eq!(values(&copies["a"]), [1.0, 2.0]);
    }

    #[test]
    fn loading_what_was_copied_restores_the_variables() {
        let parameters = parameters();
        let copies: HashMap<String, Tensor> =
            parameters.to_tensors().unwrap().into_iter().collect();
        let var = parameters.get("a").unwrap();
        var.set(&Tensor::new(&[9f32, 9.0], &Device::Cpu).unwrap())
            .unwrap();
        parameters.load(&copies).unwrap();
        assert_eq!(values(var), [1.0, 2.0]);
    }

    #[test]
    fn every_misfit_is_listed_and_nothing_changes() {
        let parameters = parameters();
        let tensor = |data: &[f32]| Tensor::new(data, &Device::Cpu).unwrap();
        let tensors: BTreeMap<_, _> = [
            ("b".to_string(), tensor(&[7.0])),
            ("y".to_string(), tensor(&[0.0])),
            ("z".to_string(), tensor(&[0.0])),
        ]
        .into();
        let error = parameters.load(&tensors).unwrap_err().to_string();
        assert_eq!(error, "parameters do not match; missing: a; unused: y, z");
        let tensors: BTreeMap<_, _> = [
            ("a".to_string(), tensor(&[7.0, 7.0])),
            ("b".to_string(), tensor(&[0.0, 0.0])),
        ]
        .into();
        let error = parameters.load(&tensors).unwrap_err().to_string();
        assert_eq!(
            error,
            "parameters do not match; misshapen: b (expected f32 [1], found f32 [2])"
        );
        assert_eq!(values(parameters.get("a").unwrap()), [1.0, 2.0]);
    }

    #[test]
    fn heads_and_decision_networks_learn_on_a_frozen_backbone() {
        for (name, learns) in [
            ("head.weight", true),
            ("head_dist.bias", true),
            ("blocks.0.head_select.mlp_head.weight", true),
            ("blocks.0.norm_policy.weight", true),
            ("norm.weight", false),
            ("pos_embed", false),
            ("blocks.0.attn.proj.bias", false),
        ] {
            assert_eq!(learns_on_frozen(name), learns, "{name}");
        }
    }

    #[test]
    fn names_and_ranks_decide_the_group() {
        for (name, rank, group) in [
            ("patch_embed.proj.weight", 4, Group::Decay),
            ("blocks.0.attn.query.weight", 2, Group::Decay),
            ("blocks.0.attn.query.bias", 1, Group::NoDecay),
            ("blocks.0.norm1.weight", 1, Group::NoDecay),
            ("tokens_to_token.attention1.norm1.weight", 2, Group::NoDecay),
            ("cls_token", 3, Group::NoDecay),
            ("pos_embed", 3, Group::NoDecay),
            ("tokens_to_token.attention1.w", 2, Group::NoDecay),
            ("head.weight", 2, Group::Decay),
            ("blocks.3.head_select.mlp_head.weight", 2, Group::Decision),
            ("blocks.3.layer_select.mlp_head.weight", 2, Group::Decision),
            (
                "blocks.3.attn.token_select.mlp_head.weight",
                2,
                Group::Decision,
            ),
            (
                "blocks.3.attn.token_select.mlp_head.bias",
                1,
                Group::DecisionNoDecay,
            ),
            ("blocks.3.norm_policy.weight", 1, Group::DecisionNoDecay),
            (
                "blocks.3.head_select.budget.weight",
                2,
                Group::DecisionNoDecay,
            ),
        ] {
            assert_eq!(Group::of(name, rank), group, "{name}");
        }
    }
}
