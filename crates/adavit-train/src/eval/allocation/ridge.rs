//! Ridge regression of several outputs on the same features, in closed form.
//!
//! ```text
//! min over W, b of  sum over rows |W x + b - y|² + penalty * rows * |W|²
//! W = ((X - x̄)ᵀ (X - x̄) + penalty * rows * 1)⁻¹ (X - x̄)ᵀ (Y - ȳ),   b = ȳ - W x̄
//! ```
//!
//! Features are standardised first, so one penalty fits all of them. Each output has its own, chosen
//! by cross-validation over images in five folds: of several rows of an image, all are in one fold.
//! What cannot be predicted is thereby left at its mean.

use crate::error::{Error, Result};

/// In how many parts images are left out in turn. Image i is in part i mod 5.
pub(super) const FOLDS: usize = 5;

/// The penalties that are tried, per row.
const PENALTIES: [f64; 9] = [1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0, 1e1, 1e2, 1e6];

/// An affine map from C features to K outputs.
#[derive(Debug, Clone)]
pub(super) struct Map {
    /// `(K, C)`.
    pub(super) weight: Vec<f64>,
    /// `(K,)`.
    pub(super) bias: Vec<f64>,
}

/// What is regressed on what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pairs<'a> {
    /// Features: of each set the rows of all images, `(images, C)`.
    pub(super) features: &'a [&'a [f32]],
    /// What each row of an image is to predict, `(images, K)`.
    pub(super) outputs: &'a [f64],
    /// K.
    pub(super) n_out: usize,
}

/// A fit, and how good it is on images that it has not seen.
#[derive(Debug, Clone)]
pub(super) struct Fit {
    pub(super) map: Map,
    /// Without the images of each fold.
    pub(super) without: Vec<Map>,
    /// Per row, of each output.
    pub(super) penalties: Vec<f64>,
    /// The share of each output's variance that maps without the image predict.
    pub(super) r2: Vec<f64>,
}

/// Sums over rows of standardised features.
#[derive(Debug, Clone)]
struct Moments {
    rows: f64,
    x: Vec<f64>,
    y: Vec<f64>,
    /// `(C, C)`, of which the lower half is filled.
    xx: Vec<f64>,
    /// `(C, K)`.
    xy: Vec<f64>,
}

/// How features are standardised.
struct Scale {
    mean: Vec<f64>,
    std: Vec<f64>,
}

impl Map {
    fn n_in(&self) -> usize {
        self.weight.len() / self.bias.len()
    }

    /// Takes one output of another map.
    fn take(&mut self, output: usize, other: &Self) {
        let n_in = self.n_in();
        let row = output * n_in..(output + 1) * n_in;
        self.weight[row.clone()].copy_from_slice(&other.weight[row]);
        self.bias[output] = other.bias[output];
    }

    /// Returns the map whose output k is the sum of outputs 0 to k.
    pub(super) fn summed(mut self) -> Self {
        let n_in = self.n_in();
        for at in n_in..self.weight.len() {
            self.weight[at] += self.weight[at - n_in];
        }
        for k in 1..self.bias.len() {
            self.bias[k] += self.bias[k - 1];
        }
        self
    }

    /// Returns the outputs of one row of features.
    pub(super) fn apply(&self, features: &[f32]) -> Vec<f64> {
        let rows = self.weight.chunks_exact(features.len());
        let sum = |weight: &[f64]| -> f64 {
            let products = weight.iter().zip(features);
            products.map(|(w, x)| w * f64::from(*x)).sum()
        };
        rows.zip(&self.bias).map(|(w, b)| sum(w) + b).collect()
    }
}

impl<'a> Pairs<'a> {
    fn images(&self) -> usize {
        self.outputs.len() / self.n_out
    }

    fn n_in(&self) -> usize {
        self.features[0].len() / self.images()
    }

    /// Every row with its image.
    fn rows(&self) -> impl Iterator<Item = (usize, &'a [f32])> {
        let n_in = self.n_in();
        let sets = self.features.iter();
        sets.flat_map(move |set| set.chunks_exact(n_in).enumerate())
    }

    fn output(&self, image: usize) -> &'a [f64] {
        &self.outputs[image * self.n_out..][..self.n_out]
    }

    fn scale(&self) -> Scale {
        let n_in = self.n_in();
        let rows = (self.features.len() * self.images()) as f64;
        let mean_of = |value: &dyn Fn(usize, f64) -> f64| -> Vec<f64> {
            let mut sums = vec![0.0; n_in];
            for (_, row) in self.rows() {
                for (at, (sum, x)) in sums.iter_mut().zip(row).enumerate() {
                    *sum += value(at, f64::from(*x));
                }
            }
            sums.into_iter().map(|sum| sum / rows).collect()
        };
        let mean = mean_of(&|_, x| x);
        let variance = mean_of(&|at, x| (x - mean[at]).powi(2));
        let std = variance.into_iter().map(|variance| {
            // A feature that is the same everywhere says nothing.
            let std = variance.sqrt();
            if std > 0.0 { std } else { 1.0 }
        });
        Scale {
            std: std.collect(),
            mean,
        }
    }
}

/// Fits the outputs of every row.
///
/// # Errors
/// If a number is not finite.
pub(super) fn fit(pairs: &Pairs) -> Result<Fit> {
    let scale = pairs.scale();
    let folds = folds(pairs, &scale);
    let mut all = Moments::new(pairs.n_in(), pairs.n_out);
    for fold in &folds {
        all.add(fold, 1.0);
    }
    let mut best: Option<Fit> = None;
    for penalty in PENALTIES {
        let without = folds.iter().map(|fold| {
            let mut rest = all.clone();
            rest.add(fold, -1.0);
            rest.solve(penalty, &scale)
        });
        let without: Vec<Map> = without.collect::<Result<_>>()?;
        let found = Fit {
            map: all.solve(penalty, &scale)?,
            r2: explained(pairs, &without),
            without,
            penalties: vec![penalty; pairs.n_out],
        };
        match &mut best {
            None => best = Some(found),
            Some(best) => best.take_better(&found),
        }
    }
    best.ok_or_else(not_finite)
}

impl Fit {
    /// Takes those outputs of another fit that are predicted better.
    fn take_better(&mut self, other: &Self) {
        for output in 0..self.r2.len() {
            if other.r2[output] > self.r2[output] {
                self.map.take(output, &other.map);
                for (map, other) in self.without.iter_mut().zip(&other.without) {
                    map.take(output, other);
                }
                self.penalties[output] = other.penalties[output];
                self.r2[output] = other.r2[output];
            }
        }
    }
}

/// The share of each output's variance that the maps explain of images that they have not seen.
pub(super) fn explained(pairs: &Pairs, without: &[Map]) -> Vec<f64> {
    let images = pairs.images() as f64;
    let mut mean = vec![0.0; pairs.n_out];
    for output in pairs.outputs.chunks_exact(pairs.n_out) {
        for (mean, y) in mean.iter_mut().zip(output) {
            *mean += y / images;
        }
    }
    let (mut left, mut whole) = (vec![0.0; pairs.n_out], vec![0.0; pairs.n_out]);
    for (image, row) in pairs.rows() {
        let predicted = without[image % FOLDS].apply(row);
        for (at, y) in pairs.output(image).iter().enumerate() {
            left[at] += (predicted[at] - y).powi(2);
            whole[at] += (mean[at] - y).powi(2);
        }
    }
    let share = |(left, whole): (f64, f64)| if whole > 0.0 { 1.0 - left / whole } else { 0.0 };
    left.into_iter().zip(whole).map(share).collect()
}

/// The moments of each fold.
fn folds(pairs: &Pairs, scale: &Scale) -> Vec<Moments> {
    let mut folds = vec![Moments::new(pairs.n_in(), pairs.n_out); FOLDS];
    let mut row = vec![0.0; pairs.n_in()];
    for (image, features) in pairs.rows() {
        for (at, (to, x)) in row.iter_mut().zip(features).enumerate() {
            *to = (f64::from(*x) - scale.mean[at]) / scale.std[at];
        }
        folds[image % FOLDS].push(&row, pairs.output(image));
    }
    folds
}

impl Moments {
    fn new(n_in: usize, n_out: usize) -> Self {
        Self {
            rows: 0.0,
            x: vec![0.0; n_in],
            y: vec![0.0; n_out],
            xx: vec![0.0; n_in * n_in],
            xy: vec![0.0; n_in * n_out],
        }
    }

    fn push(&mut self, x: &[f64], y: &[f64]) {
        self.rows += 1.0;
        let add = |sums: &mut [f64], by: f64, values: &[f64]| {
            for (sum, value) in sums.iter_mut().zip(values) {
                *sum += by * value;
            }
        };
        add(&mut self.x, 1.0, x);
        add(&mut self.y, 1.0, y);
        for (at, value) in x.iter().enumerate() {
            add(&mut self.xx[at * x.len()..], *value, &x[..=at]);
            add(&mut self.xy[at * y.len()..], *value, y);
        }
    }

    fn add(&mut self, other: &Self, by: f64) {
        self.rows += by * other.rows;
        for (sums, others) in [
            (&mut self.x, &other.x),
            (&mut self.y, &other.y),
            (&mut self.xx, &other.xx),
            (&mut self.xy, &other.xy),
        ] {
            for (sum, other) in sums.iter_mut().zip(others) {
                *sum += by * other;
            }
        }
    }

    /// Returns the map of features as they are.
    fn solve(&self, penalty: f64, scale: &Scale) -> Result<Map> {
        let (n_in, n_out, rows) = (self.x.len(), self.y.len(), self.rows);
        let mut matrix = self.xx.clone();
        let mut rights = vec![0.0; n_in * n_out];
        for i in 0..n_in {
            for j in 0..=i {
                matrix[i * n_in + j] -= self.x[i] * self.x[j] / rows;
            }
            matrix[i * n_in + i] += penalty * rows;
            for k in 0..n_out {
                rights[k * n_in + i] = self.xy[i * n_out + k] - self.x[i] * self.y[k] / rows;
            }
        }
        cholesky(&mut matrix, n_in)?;
        let mut bias = Vec::with_capacity(n_out);
        for (k, weight) in rights.chunks_exact_mut(n_in).enumerate() {
            substitute(&matrix, weight);
            let mut constant = self.y[k] / rows;
            for (at, w) in weight.iter_mut().enumerate() {
                constant -= *w * self.x[at] / rows;
                *w /= scale.std[at];
                constant -= *w * scale.mean[at];
            }
            bias.push(constant);
        }
        if rights.iter().chain(&bias).any(|x| !x.is_finite()) {
            return Err(not_finite());
        }
        Ok(Map {
            weight: rights,
            bias,
        })
    }
}

/// Replaces the lower half of a positive definite matrix by L of A = L Lᵀ.
fn cholesky(matrix: &mut [f64], n: usize) -> Result<()> {
    for i in 0..n {
        for j in 0..=i {
            let (above, row) = matrix.split_at(i * n);
            let other = if i == j { row } else { &above[j * n..] };
            let products = row[..j].iter().zip(&other[..j]);
            let rest = row[j] - products.map(|(a, b)| a * b).sum::<f64>();
            if i != j {
                matrix[i * n + j] = rest / matrix[j * n + j];
            } else if rest > 0.0 {
                matrix[i * n + i] = rest.sqrt();
            } else {
                return Err(not_finite());
            }
        }
    }
    Ok(())
}

/// Solves L Lᵀ x = b in place of b.
fn substitute(lower: &[f64], b: &mut [f64]) {
    let n = b.len();
    for i in 0..n {
        let products = lower[i * n..][..i].iter().zip(&b[..i]);
        b[i] = (b[i] - products.map(|(l, x)| l * x).sum::<f64>()) / lower[i * n + i];
    }
    for i in (0..n).rev() {
        let products = (i + 1..n).map(|j| lower[j * n + i] * b[j]);
        b[i] = (b[i] - products.sum::<f64>()) / lower[i * n + i];
    }
}

fn not_finite() -> Error {
    Error::Mismatch(
        "allocator: expected finite tokens and losses of the images, found others; the model does \
         not fit these images"
            .into(),
    )
}

#[cfg(test)]
mod tests;
