//! The step against a plain loop in f64, at every level, and what must not happen to shared storage.

use super::*;

const FIRST: AdamWStep = AdamWStep {
    beta1: 0.9,
    beta2: 0.99,
    eps: 1e-8,
    step: 1,
    clip: 1.0,
};

const STEPS: u64 = 4;
const SIZES: [usize; 4] = [3, 0, TASK_LEN + 5, 2 * TASK_LEN];

/// A number for each place, in [-1, 1].
fn number(seed: usize, i: usize) -> f64 {
    ((i * 37 + seed * 101) as f64 * 0.7).sin()
}

fn grads(step: u64, dtype: DType) -> Vec<Option<Tensor>> {
    let grad = |(seed, len): (usize, &usize)| {
        // The first parameter has none in the second step.
        let missing = seed == 0 && step == 2;
        let values: Vec<f64> = (0..*len)
            .map(|i| number(seed + 7 * step as usize, i))
            .collect();
        let grad = Tensor::from_vec(values, *len, &Device::Cpu).unwrap();
        (!missing).then(|| grad.to_dtype(dtype).unwrap())
    };
    SIZES.iter().enumerate().map(grad).collect()
}

/// Weights, both means and the sums of squares after some steps.
fn run(level: Level, dtype: DType) -> Vec<Vec<f64>> {
    let vars: Vec<[Var; 3]> = SIZES
        .iter()
        .enumerate()
        .map(|(seed, len)| {
            let values: Vec<f64> = (0..*len).map(|i| number(seed, i)).collect();
            let tensor = Tensor::from_vec(values, *len, &Device::Cpu).unwrap();
            let zeros = || Var::zeros(*len, dtype, &Device::Cpu).unwrap();
            let var = Var::from_tensor(&tensor.to_dtype(dtype).unwrap()).unwrap();
            [var, zeros(), zeros()]
        })
        .collect();
    let mut norms = Vec::new();
    for number in 1..=STEPS {
        let grads = grads(number, dtype);
        let grads: Vec<Option<&Tensor>> = grads.iter().map(Option::as_ref).collect();
        norms.extend(squared_norms_at(level, &grads).unwrap());
        let slots: Vec<AdamWSlot> = vars
            .iter()
            .zip(grads)
            .enumerate()
            .map(|(i, ([var, exp_avg, exp_avg_sq], grad))| AdamWSlot {
                var,
                grad,
                exp_avg,
                exp_avg_sq,
                lr: 0.01 * (i + 1) as f64,
                weight_decay: if i == 0 { 0.0 } else { 0.1 },
            })
            .collect();
        let step = AdamWStep {
            beta1: 0.9,
            beta2: 0.99,
            eps: 1e-8,
            step: number,
            clip: 0.5,
        };
        adamw_at(level, &slots, &step).unwrap();
    }
    let mut all: Vec<Vec<f64>> = vars
        .iter()
        .flatten()
        .map(|var| {
            let var = var.to_dtype(DType::F64).unwrap();
            var.to_vec1().unwrap()
        })
        .collect();
    all.push(norms);
    all
}

/// The weight and its means after the same steps, element by element in f64.
fn reference(slot: usize, i: usize) -> [f64; 3] {
    let (mut w, mut m, mut v) = (number(slot, i), 0.0, 0.0);
    let (lr, decay) = (0.01 * (slot + 1) as f64, if slot == 0 { 0.0 } else { 0.1 });
    for step in 1..=STEPS {
        let missing = slot == 0 && step == 2;
        let g = if missing {
            0.0
        } else {
            0.5 * number(slot + 7 * step as usize, i)
        };
        m = 0.9 * m + 0.1 * g;
        v = 0.99 * v + 0.01 * g * g;
        let power = step as i32;
        let mean = m / (1.0 - 0.9f64.powi(power));
        let root = (v / (1.0 - 0.99f64.powi(power))).sqrt() + 1e-8;
        w = w * (1.0 - lr * decay) - lr * mean / root;
    }
    [w, m, v]
}

#[test]
fn steps_follow_the_formula_at_every_level_and_in_f64() {
    let mut runs: Vec<_> = Level::available()
        .map(|level| (run(level, DType::F32), 1e-5))
        .collect();
    runs.push((run(Level::Portable, DType::F64), 1e-12));
    for (found, tolerance) in runs {
        for (slot, len) in SIZES.iter().enumerate() {
            for i in 0..*len {
                for (part, expected) in reference(slot, i).into_iter().enumerate() {
                    let found = found[3 * slot + part][i];
                    assert!(
                        (found - expected).abs() <= tolerance,
                        "parameter {slot}, part {part}, at {i}: expected {expected}, found {found}"
                    );
                }
            }
        }
        let exact = |step: u64, slot: usize| -> f64 {
            let missing = slot == 0 && step == 2;
            let squares = (0..SIZES[slot]).map(|i| number(slot + 7 * step as usize, i).powi(2));
            if missing { 0.0 } else { squares.sum() }
        };
        let norms = &found[3 * SIZES.len()];
        for (at, norm) in norms.iter().enumerate() {
            let expected = exact(1 + (at / SIZES.len()) as u64, at % SIZES.len());
            assert!((norm - expected).abs() <= 1e-5 * expected.max(1.0));
        }
    }
}

#[test]
fn the_bits_depend_neither_on_the_level_nor_on_the_threads() {
    let expected = run(Level::Portable, DType::F32);
    for level in Level::available() {
        for threads in [1, 3] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
            let found = pool.unwrap().install(|| run(level, DType::F32));
            assert!(found == expected, "{level:?}, {threads} threads");
        }
    }
}

#[test]
fn a_gradient_of_another_shape_is_refused_and_changes_nothing() {
    let var = Var::ones(3, DType::F32, &Device::Cpu).unwrap();
    let mean = Var::zeros(3, DType::F32, &Device::Cpu).unwrap();
    let grad = Tensor::ones(4, DType::F32, &Device::Cpu).unwrap();
    let slot = AdamWSlot {
        var: &var,
        grad: Some(&grad),
        exp_avg: &mean,
        exp_avg_sq: &mean,
        lr: 1.0,
        weight_decay: 0.0,
    };
    let error = adamw(&[slot], &FIRST).unwrap_err().to_string();
    assert!(error.contains("adamw gradient"), "{error}");
    assert_eq!(var.to_vec1::<f32>().unwrap(), [1.0; 3]);
}

fn one_step(slot: AdamWSlot) {
    adamw(&[slot], &FIRST).unwrap();
}

#[test]
fn tensors_that_share_a_storage_keep_their_values() {
    let var = Var::ones(3, DType::F32, &Device::Cpu).unwrap();
    let mean = Var::zeros(3, DType::F32, &Device::Cpu).unwrap();
    let slot = |grad, exp_avg_sq| AdamWSlot {
        var: &var,
        grad,
        exp_avg: &mean,
        exp_avg_sq,
        lr: 0.1,
        weight_decay: 0.0,
    };
    // Two states in one variable.
    one_step(slot(None, &mean));
    assert_eq!(mean.to_vec1::<f32>().unwrap(), [0.0; 3]);
    assert_eq!(var.to_vec1::<f32>().unwrap().len(), 3);
    // A gradient that is the parameter itself.
    let squares = Var::zeros(3, DType::F32, &Device::Cpu).unwrap();
    let grad = var.as_detached_tensor();
    one_step(slot(Some(&grad), &squares));
    let found = var.to_vec1::<f32>().unwrap();
    assert!(found.iter().all(|w| (w - 0.9).abs() < 1e-5), "{found:?}");
}
