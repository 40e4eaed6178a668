//! The closed form, and what it predicts.

use super::*;

fn moments(rows: &[(f64, f64)]) -> Moments {
    let mut moments = Moments::new(1, 1);
    for (x, y) in rows {
        moments.push(&[*x], &[*y]);
    }
    moments
}

fn unscaled(n_in: usize) -> Scale {
    Scale {
        mean: vec![0.0; n_in],
        std: vec![1.0; n_in],
    }
}

#[test]
fn the_closed_form_is_that_of_the_small_case() {
    // Σ(x - 1)(y - 3) = 4 and Σ(x - 1)² = 2, so W = 4 / (2 + 3 penalty) and b = 3 - W.
    let moments = moments(&[(0.0, 1.0), (1.0, 3.0), (2.0, 5.0)]);
    for (penalty, weight) in [(0.0, 2.0), (2.0 / 3.0, 1.0), (2.0, 0.5)] {
        let map = moments.solve(penalty, &unscaled(1)).unwrap();
        assert!((map.weight[0] - weight).abs() < 1e-12);
        assert!((map.bias[0] - (3.0 - weight)).abs() < 1e-12);
    }
}

#[test]
fn the_gradient_of_the_loss_is_zero_at_the_solution() {
    let rows: Vec<([f64; 3], [f64; 2])> = (0..12)
        .map(|i| {
            let x = [1.3, 2.1, 0.7].map(|rate| (f64::from(i) * rate).sin() + 0.4);
            (x, [x[0] - 2.0 * x[1] + f64::from(i % 3), x[2] * x[1]])
        })
        .collect();
    let mut moments = Moments::new(3, 2);
    for (x, y) in &rows {
        moments.push(x, y);
    }
    let penalty = 0.05;
    let map = moments.solve(penalty, &unscaled(3)).unwrap();
    for k in 0..2 {
        let weight = &map.weight[k * 3..][..3];
        let left = |x: &[f64; 3], y: f64| {
            let sum: f64 = weight.iter().zip(x).map(|(w, x)| w * x).sum();
            sum + map.bias[k] - y
        };
        for (at, w) in weight.iter().enumerate() {
            let slope: f64 = rows.iter().map(|(x, y)| left(x, y[k]) * x[at]).sum();
            assert!((slope + penalty * 12.0 * w).abs() < 1e-9);
        }
        let sum: f64 = rows.iter().map(|(x, y)| left(x, y[k])).sum();
        assert!(sum.abs() < 1e-9);
    }
}

#[test]
fn what_is_linear_is_found_whatever_its_scale() {
    let image = |i: usize| {
        [
            (i as f32 * 0.7).sin() * 100.0,
            (i as f32 * 1.9).cos() + 5.0,
            3.0,
        ]
    };
    let features: Vec<f32> = (0..60).flat_map(image).collect();
    let outputs = (0..60).flat_map(|i| {
        let [a, b, _] = image(i).map(f64::from);
        // The second output is noise.
        [0.02 * a - b + 1.0, ((i * i * 7919) % 101) as f64]
    });
    let outputs: Vec<f64> = outputs.collect();
    let fit = fit(&Pairs {
        features: &[&features, &features],
        outputs: &outputs,
        n_out: 2,
    })
    .unwrap();
    assert!(fit.r2[0] > 0.999 && fit.r2[1] < 0.3, "{:?}", fit.r2);
    assert!(fit.penalties[0] < fit.penalties[1], "{:?}", fit.penalties);
    for (image, output) in outputs.chunks_exact(2).enumerate() {
        let found = fit.map.apply(&features[image * 3..][..3]);
        // The penalty shrinks the weights a little.
        assert!((found[0] - output[0]).abs() < 0.3, "{found:?} {output:?}");
    }
}

#[test]
fn numbers_that_are_not_finite_are_refused() {
    let features = [f32::NAN; 10];
    let outputs = [0.0; 10];
    let pairs = Pairs {
        features: &[&features],
        outputs: &outputs,
        n_out: 1,
    };
    assert!(fit(&pairs).is_err());
}
