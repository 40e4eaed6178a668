//! AdamW against an independent implementation, and its state.

use super::*;
use candle_core::Device;

const NAMES: [&str; 3] = [
    "blocks.0.fc1.bias",
    "blocks.0.fc1.weight",
    "blocks.0.head_select.mlp_head.weight",
];
const START: [&[f64]; 3] = [&[0.5, -0.25], &[1.0, -2.0, 0.5, 0.75], &[0.3, -0.6]];
const SHAPES: [&[usize]; 3] = [&[2], &[2, 2], &[1, 2]];
const FACTORS: [f64; 5] = [0.1, 0.5, 1.0, 0.8, 0.6];
const CONFIG: AdamWConfig = AdamWConfig {
    lr: 0.01,
    decision_lr: 0.002,
    layer_decay: 1.0,
    beta1: 0.9,
    beta2: 0.95,
    eps: 1e-8,
    weight_decay: 0.1,
    max_grad_norm: 3.0,
};

fn parameters(dtype: DType) -> Parameters {
    let vars = (0..3).map(|i| {
        let tensor = Tensor::from_slice(START[i], SHAPES[i], &Device::Cpu).unwrap();
        let var = Var::from_tensor(&tensor.to_dtype(dtype).unwrap()).unwrap();
        (NAMES[i].to_string(), var)
    });
    Parameters::from_vars(vars.collect())
}

/// Gradients of the loss `sum(w g)`, which are `g`, of the parameters that `keep` lets pass.
fn gradients(parameters: &Parameters, k: usize, keep: impl Fn(usize) -> bool) -> GradStore {
    let mut loss =
        Tensor::zeros((), parameters.get(NAMES[0]).unwrap().dtype(), &Device::Cpu).unwrap();
    for (i, (_, var)) in parameters.iter().enumerate().filter(|(i, _)| keep(*i)) {
        let g: Vec<f64> = START[i]
            .iter()
            .map(|x| (x + 0.5) * (1.7 * k as f64 + i as f64).cos() * 2.0)
            .collect();
        let g = Tensor::from_vec(g, var.shape(), &Device::Cpu).unwrap();
        let product = (var.as_tensor() * g.to_dtype(var.dtype()).unwrap()).unwrap();
        loss = (loss + product.sum_all().unwrap()).unwrap();
    }
    loss.backward().unwrap()
}

fn flat<'a>(tensors: impl IntoIterator<Item = &'a Tensor>) -> Vec<f64> {
    let flat = |tensor: &Tensor| {
        let tensor = tensor.flatten_all().unwrap().to_dtype(DType::F64).unwrap();
        tensor.to_vec1::<f64>().unwrap()
    };
    tensors.into_iter().flat_map(flat).collect()
}

fn values(parameters: &Parameters) -> Vec<f64> {
    flat(parameters.iter().map(|(_, var)| var.as_tensor()))
}

fn assert_close(found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert!((found - expected).abs() <= tolerance, "{found} {expected}");
    }
}

// PyTorch's `_single_tensor_adamw` and `clip_grad_norm_` rewritten in float64 numpy 2.4:
//
//   def adamw(params, grads_of_step, lrs, wds, factors, b1, b2, eps, max_norm):
//       m = [np.zeros_like(p) for p in params]; v = [np.zeros_like(p) for p in params]; norms = []
//       for t, (grads, f) in enumerate(zip(grads_of_step, factors), 1):
//           norm = np.sqrt(sum((g ** 2).sum() for g in grads)); norms.append(norm)
//           clip = min(1.0, max_norm / (norm + 1e-6))
//           for i, g in enumerate(grads):
//               g = g * clip; lr = lrs[i] * f
//               params[i] = params[i] * (1 - lr * wds[i])
//               m[i] = b1 * m[i] + (1 - b1) * g
//               v[i] = b2 * v[i] + (1 - b2) * g * g
//               denom = np.sqrt(v[i]) / np.sqrt(1 - b2 ** t) + eps
//               params[i] = params[i] - lr / (1 - b1 ** t) * m[i] / denom
//       return params, m, v, norms
//   p = [np.array([0.5, -0.25]), np.array([[1.0, -2.0], [0.5, 0.75]]), np.array([[0.3, -0.6]])]
//   g = [[(x + 0.5) * np.cos(1.7 * k + i) * 2 for i, x in enumerate(p)] for k in range(5)]
//   adamw(p, g, [0.01, 0.01, 0.002], [0.0, 0.1, 0.1], [0.1, 0.5, 1.0, 0.8, 0.6], 0.9, 0.95, 1e-8, 3.0)
#[expect(clippy::unreadable_literal, reason = "as numpy prints them")]
mod golden {
    pub(super) const VALUES: [f64; 8] = [
        0.4965771747692971,
        -0.253422825146581,
        0.9988386347645013,
        -1.9958420030368833,
        0.5003369506215879,
        0.7495877926937167,
        0.3011631879925219,
        -0.6009832282951262,
    ];
    pub(super) const EXP_AVG: [f64; 8] = [
        0.15320979508735622,
        0.038302448771839054,
        0.0591576641181414,
        -0.0591576641181414,
        0.039438442745427585,
        0.04929805343178448,
        -0.08847394558156008,
        0.011059243197695006,
    ];
    pub(super) const EXP_AVG_SQ: [f64; 8] = [
        0.44252909277286306,
        0.02765806829830394,
        0.3550960847788807,
        0.3550960847788807,
        0.157820482123947,
        0.24659450331866714,
        0.18927609400848794,
        0.0029574389688826223,
    ];
    pub(super) const NORMS: [f64; 5] = [
        3.59822028600931,
        5.00306928188138,
        2.772751695514864,
        5.397974756535561,
        2.237203367965588,
    ];
}

#[test]
fn five_steps_equal_pytorchs_formula() {
    // Rounding only: a few ulps of values near 1 over five steps.
    for (dtype, tolerance) in [(DType::F64, 1e-14), (DType::F32, 1e-6)] {
        let parameters = parameters(dtype);
        let mut optimizer = AdamW::new(CONFIG, &parameters).unwrap();
        for (k, factor) in FACTORS.into_iter().enumerate() {
            let stats = optimizer
                .step(&gradients(&parameters, k, |_| true), factor)
                .unwrap();
            assert_close(&[stats.grad_norm], &[golden::NORMS[k]], tolerance);
            assert_eq!(stats.clipped, golden::NORMS[k] > 3.0);
        }
        assert_close(&values(&parameters), &golden::VALUES, tolerance);
        let state = optimizer.state().unwrap();
        let moment = |suffix: &str| flat(NAMES.map(|name| &state[&format!("{name}.{suffix}")]));
        assert_close(&moment("exp_avg"), &golden::EXP_AVG, tolerance);
        assert_close(&moment("exp_avg_sq"), &golden::EXP_AVG_SQ, tolerance);
        assert_eq!(optimizer.steps(), 5);
    }
}

#[test]
fn the_first_step_is_the_learning_rate_against_the_sign() {
    let parameters = parameters(DType::F64);
    let config = AdamWConfig {
        max_grad_norm: 0.0,
        ..CONFIG
    };
    let mut optimizer = AdamW::new(config, &parameters).unwrap();
    let stats = optimizer
        .step(&gradients(&parameters, 0, |_| true), 1.0)
        .unwrap();
    assert!(!stats.clipped);
    // m / sqrt(v) is g / |g|; the gradients are larger than 0.05, so eps moves it by 2e-7 at
    // most. All gradients have the sign of w + 0.5, but cos(2) < 0 turns the last tensor's.
    let decay = 1.0 - 0.01 * 0.1;
    let decision_decay = 1.0 - 0.002 * 0.1;
    let expected = [
        0.5 - 0.01,
        -0.25 - 0.01,
        decay - 0.01,
        -2.0 * decay + 0.01,
        0.5 * decay - 0.01,
        0.75 * decay - 0.01,
        0.3 * decision_decay + 0.002,
        -0.6 * decision_decay - 0.002,
    ];
    assert_close(&values(&parameters), &expected, 2e-9);
}

#[test]
fn a_resumed_run_continues_bit_for_bit() {
    let parameters = parameters(DType::F32);
    let mut optimizer = AdamW::new(CONFIG, &parameters).unwrap();
    for k in 0..3 {
        optimizer
            .step(&gradients(&parameters, k, |_| true), 1.0)
            .unwrap();
    }
    let (saved, state, step) = (
        parameters.to_tensors().unwrap(),
        optimizer.state().unwrap(),
        optimizer.steps(),
    );
    for k in 3..5 {
        optimizer
            .step(&gradients(&parameters, k, |_| true), 1.0)
            .unwrap();
    }

    let others = self::parameters(DType::F32);
    others.load(&saved).unwrap();
    let mut resumed = AdamW::new(CONFIG, &others).unwrap();
    resumed.load_state(&state, step).unwrap();
    for k in 3..5 {
        resumed.step(&gradients(&others, k, |_| true), 1.0).unwrap();
    }
    assert_eq!(values(&parameters), values(&others));
    assert_eq!(
        flat(optimizer.state().unwrap().values()),
        flat(resumed.state().unwrap().values())
    );
}

#[test]
fn a_state_that_does_not_fit_is_refused_with_every_name() {
    let parameters = parameters(DType::F32);
    let mut optimizer = AdamW::new(CONFIG, &parameters).unwrap();
    let mut state = optimizer.state().unwrap();
    let tensor = state.remove("blocks.0.fc1.bias.exp_avg").unwrap();
    state.insert("other.exp_avg".to_string(), tensor.clone());
    state.insert("blocks.0.fc1.weight.exp_avg_sq".to_string(), tensor);
    let error = optimizer.load_state(&state, 7).unwrap_err().to_string();
    assert_eq!(
        error,
        "optimizer moments do not match; missing: blocks.0.fc1.bias.exp_avg; \
         unused: other.exp_avg; \
         misshapen: blocks.0.fc1.weight.exp_avg_sq (expected f32 [2, 2], found f32 [2])"
    );
    assert_eq!(optimizer.steps(), 0);
}

#[test]
fn a_missing_gradient_counts_as_zero() {
    let (with_zero, without) = (parameters(DType::F32), parameters(DType::F32));
    let mut optimizers = [&with_zero, &without].map(|p| AdamW::new(CONFIG, p).unwrap());
    optimizers[0]
        .step(&gradients(&with_zero, 0, |_| true), 1.0)
        .unwrap();
    optimizers[1]
        .step(&gradients(&without, 0, |_| true), 1.0)
        .unwrap();

    let mut grads = gradients(&with_zero, 1, |i| i != 1);
    let var = with_zero.get(NAMES[1]).unwrap();
    grads.insert(var, var.zeros_like().unwrap());
    let expected = optimizers[0].step(&grads, 1.0).unwrap();
    let before = values(&without);
    let found = optimizers[1]
        .step(&gradients(&without, 1, |i| i != 1), 1.0)
        .unwrap();
    assert_eq!(found, expected);
    assert_eq!(values(&without), values(&with_zero));
    assert_ne!(values(&without)[2..6], before[2..6]);
}

#[test]
fn without_any_gradient_the_norm_is_zero() {
    let parameters = parameters(DType::F32);
    let mut optimizer = AdamW::new(CONFIG, &parameters).unwrap();
    let stats = optimizer
        .step(&gradients(&parameters, 0, |_| false), 1.0)
        .unwrap();
    assert_eq!(
        stats,
        StepStats {
            grad_norm: 0.0,
            clipped: false
        }
    );
}

#[test]
fn a_gradient_that_is_not_finite_is_named_and_changes_nothing() {
    let parameters = parameters(DType::F32);
    let mut optimizer = AdamW::new(CONFIG, &parameters).unwrap();
    for bad in [f32::NAN, f32::INFINITY] {
        let mut grads = gradients(&parameters, 0, |_| true);
        for name in &NAMES[1..] {
            let var = parameters.get(name).unwrap();
            grads.insert(var, Tensor::full(bad, var.shape(), &Device::Cpu).unwrap());
        }
        let error = optimizer.step(&grads, 1.0).unwrap_err();
        assert!(
            matches!(&error, Error::NonFinite { what, step: 0 }
            if what == "the gradient of blocks.0.fc1.weight"),
            "{error}"
        );
    }
    assert_eq!(optimizer.steps(), 0);
    assert_eq!(values(&parameters), values(&self::parameters(DType::F32)));
}

#[test]
fn clipping_scales_the_whole_gradient_to_the_largest_norm() {
    let parameters = parameters(DType::F64);
    let mut optimizer = AdamW::new(CONFIG, &parameters).unwrap();
    optimizer
        .step(&gradients(&parameters, 1, |_| true), 1.0)
        .unwrap();
    let state = optimizer.state().unwrap();
    let clipped = flat(NAMES.map(|name| &state[&format!("{name}.exp_avg")]));
    let norm = clipped
        .iter()
        .map(|m| (m / 0.1).powi(2))
        .sum::<f64>()
        .sqrt();
    assert!((norm - 3.0).abs() < 1e-6);
}

#[test]
fn settings_out_of_range_and_unknown_fields_are_refused() {
    assert!(AdamWConfig::default().validate().is_ok());
    for config in [
        AdamWConfig {
            lr: f64::NAN,
            ..CONFIG
        },
        AdamWConfig {
            decision_lr: -1.0,
            ..CONFIG
        },
        AdamWConfig {
            beta2: 1.0,
            ..CONFIG
        },
        AdamWConfig { eps: 0.0, ..CONFIG },
        AdamWConfig {
            max_grad_norm: -1.0,
            ..CONFIG
        },
    ] {
        assert!(config.validate().is_err(), "{config:?}");
    }
    let read = |text: &str| toml::from_str::<AdamWConfig>(text);
    assert_eq!(read("lr = 0.1").unwrap().lr, 0.1);
    assert!(read("learning_rate = 0.1").is_err());
}

#[test]
fn half_precision_parameters_are_refused() {
    assert!(AdamW::new(CONFIG, &parameters(DType::BF16)).is_err());
}

#[test]
fn layer_decay_scales_the_learning_rate_of_blocks_and_not_of_decisions() {
    let after = |config: AdamWConfig| {
        let parameters = parameters(DType::F64);
        let mut optimizer = AdamW::new(config, &parameters).unwrap();
        for (k, factor) in FACTORS.into_iter().enumerate() {
            let gradients = gradients(&parameters, k, |_| true);
            optimizer.step(&gradients, factor).unwrap();
        }
        values(&parameters)
    };
    // The only block is one from the head.
    let decayed = AdamWConfig {
        layer_decay: 0.5,
        ..CONFIG
    };
    let slower = AdamWConfig {
        lr: CONFIG.lr * 0.5,
        ..CONFIG
    };
    assert_eq!(after(decayed), after(slower));
    assert_ne!(after(decayed), after(CONFIG));
}
