//! Inference on slices: equal to the differentiable operations, and only what was asked for.

use std::ops::Range;

use adavit_kernels::{
    self as kernels, HeadGate, HeadSizes, ImageHeads, ImageRows, PreparedLayerNorm, PreparedLinear,
    ProductParts, Qkv, Rows, SmallLinear, Workspace, attend,
};
use adavit_kernels_testing::{Values, flat};
use candle_core::{DType, Tensor};

use crate::slices::{UNTOUCHED, floats, narrow, panic_of};

/// Rows, ranges of inputs and ranges of outputs.
type Asked = (Vec<usize>, Vec<Range<usize>>, Vec<Range<usize>>);

/// The rows and columns of a part, computed in f64; the rest is untouched.
fn expected((xs, weight, bias): (&Tensor, &Tensor, &Tensor), parts: &[Asked]) -> Vec<f64> {
    let (n_out, n_in) = weight.dims2().unwrap();
    let (xs, weight, bias) = (flat(xs), flat(weight), flat(bias));
    let m = xs.len() / n_in;
    let mut ys = vec![f64::from(UNTOUCHED); m * n_out];
    for (rows, inner, columns) in parts {
        for row in rows {
            for column in columns.iter().cloned().flatten() {
                let product = |i: usize| xs[row * n_in + i] * weight[column * n_in + i];
                let sum: f64 = inner.iter().cloned().flatten().map(product).sum();
                ys[row * n_out + column] = sum + bias[column];
            }
        }
    }
    ys
}

#[test]
fn a_product_computes_the_parts_that_are_asked_for_and_nothing_else() {
    let mut values = Values::new(1);
    let (n_in, n_out) = (70, 96);
    let xs = values.tensor(&[211, n_in]);
    let (weight, bias) = (values.tensor(&[n_out, n_in]), values.tensor(&[n_out]));
    let odd: Vec<usize> = (0..120).filter(|row| row % 3 != 1).collect();
    let cases = [
        vec![(odd, vec![3..20, 33..70], vec![0..32, 48..96])],
        vec![
            (vec![0, 4, 5], vec![0..70], vec![16..32]),
            (vec![], vec![0..70], vec![0..96]),
            ((100..211).collect(), vec![], vec![0..96]),
        ],
        vec![((0..211).collect(), vec![0..70], vec![0..96])],
        vec![],
    ];
    let linear = PreparedLinear::new(&narrow(&weight), Some(&narrow(&bias)), 16).unwrap();
    let mut parts = ProductParts::default();
    for case in &cases {
        parts.clear();
        for (rows, inner, columns) in case {
            parts.push(rows.iter().copied(), inner, columns);
        }
        let mut work = Workspace::default();
        let mut ys = vec![UNTOUCHED; 211 * n_out];
        linear.write(&floats(&xs), &mut ys, &parts, &mut work);
        let expected = expected((&xs, &weight, &bias), case);
        for (at, (y, expected)) in ys.iter().zip(expected).enumerate() {
            assert!(
                (f64::from(*y) - expected).abs() <= 1e-3,
                "at {at}: {y}, {expected}"
            );
        }
        let count = |ranges: &[Range<usize>]| ranges.iter().map(Range::len).sum::<usize>();
        let macs: usize = case
            .iter()
            .map(|(rows, inner, columns)| rows.len() * count(inner) * count(columns))
            .sum();
        assert_eq!(work.take_macs(), macs as u64);
    }
}

#[test]
fn whole_products_are_those_of_the_operations_to_the_bit() {
    let mut values = Values::new(2);
    let xs = narrow(&values.tensor(&[53, 40]));
    let (weight, bias) = (
        narrow(&values.tensor(&[72, 40])),
        narrow(&values.tensor(&[72])),
    );
    let linear = PreparedLinear::new(&weight, Some(&bias), 72).unwrap();
    let mut part = ProductParts::default();
    part.push(0..53, &[0..40], &[0..72]);
    let mut work = Workspace::default();
    let mut ys = vec![0.0; 53 * 72];
    linear.write(&floats(&xs), &mut ys, &part, &mut work);
    let plain = kernels::linear(&xs, &weight, Some(&bias)).unwrap();
    assert_eq!(ys, floats(&plain));
    linear.write_gelu(&floats(&xs), &mut ys, &part, &mut work);
    let gelu = kernels::linear_gelu(&xs, &weight, &bias).unwrap();
    assert_eq!(ys, floats(&gelu));
    linear.add(&floats(&xs), &mut ys, &part, &mut work);
    assert_eq!(ys, floats(&(gelu + plain).unwrap()));
}

#[test]
fn layer_norms_write_their_rows() {
    let mut values = Values::new(3);
    let xs = narrow(&values.tensor(&[90, 33]));
    let (weight, bias) = (narrow(&values.tensor(&[33])), narrow(&values.tensor(&[33])));
    let norm = PreparedLayerNorm::new(&weight, &bias, 1e-6).unwrap();
    let exact = floats(&kernels::layer_norm(&xs, &weight, &bias, 1e-6).unwrap());
    let rows: Vec<usize> = (0..90).step_by(2).collect();
    let mut ys = vec![UNTOUCHED; 90 * 33];
    norm.write(&floats(&xs), &mut ys, Rows::Some(&rows));
    for (row, (found, exact)) in ys.chunks(33).zip(exact.chunks(33)).enumerate() {
        if row % 2 == 0 {
            assert_eq!(found, exact, "row {row}");
        } else {
            assert!(found.iter().all(|y| *y == UNTOUCHED), "row {row}");
        }
    }
}

#[test]
fn groups_of_any_width_are_computed_alone() {
    let mut values = Values::new(5);
    let xs = values.tensor(&[67, 30]);
    for (group, count) in [
        (1, 7),
        (8, 5),
        (16, 6),
        (20, 4),
        (24, 3),
        (48, 2),
        (70, 2),
        (33, 1),
    ] {
        let n_out = group * count;
        let (weight, bias) = (values.tensor(&[n_out, 30]), values.tensor(&[n_out]));
        let linear = PreparedLinear::new(&narrow(&weight), Some(&narrow(&bias)), group).unwrap();
        for first in 0..count {
            // Every second group, the last two of which may be neighbours.
            let columns: Vec<Range<usize>> = (first..count)
                .step_by(2)
                .map(|index| index * group..(index + 1) * group)
                .collect();
            let case = vec![((0..67).step_by(1 + first).collect(), vec![0..30], columns)];
            let (rows, inner, columns): &Asked = &case[0];
            let mut parts = ProductParts::default();
            parts.push(rows.iter().copied(), inner, columns);
            let mut ys = vec![UNTOUCHED; 67 * n_out];
            linear.write(&floats(&xs), &mut ys, &parts, &mut Workspace::default());
            let expected = expected((&xs, &weight, &bias), &case);
            for (at, (y, expected)) in ys.iter().zip(expected).enumerate() {
                assert!(
                    (f64::from(*y) - expected).abs() <= 1e-3,
                    "groups of {group} from {first}, at {at}: {y}, {expected}"
                );
            }
        }
    }
}

#[test]
fn parts_with_the_same_ranges_join() {
    let (a, b) = ([0..16], [16..32]);
    let mut parts = ProductParts::default();
    parts.push([1, 2], &[0..8], &a);
    parts.push([5], &[0..8], &a);
    parts.push([7, 9], &[0..8], &b);
    assert_eq!(parts.rows(), [1, 2, 5, 7, 9]);
    assert_eq!(parts.macs(), 5 * 8 * 16);
    parts.clear();
    assert_eq!((parts.rows().len(), parts.macs()), (0, 0));
}

#[test]
fn rows_of_two_parts_may_not_be_the_same() {
    let weight = Tensor::zeros((32, 8), DType::F32, &candle_core::Device::Cpu).unwrap();
    let linear = PreparedLinear::new(&weight, None, 16).unwrap();
    let mut parts = ProductParts::default();
    parts.push([3], &[0..8], &[0..16]);
    parts.push([3], &[0..8], &[16..32]);
    let message = panic_of(|| {
        let mut ys = vec![0.0; 4 * 32];
        linear.write(&[0.0; 32], &mut ys, &parts, &mut Workspace::default());
    });
    assert!(message.contains("parts ascend"), "{message}");
}

#[test]
fn small_maps_are_those_of_linear() {
    let mut values = Values::new(6);
    let xs = narrow(&values.tensor(&[300, 37]));
    let rows: Vec<usize> = (0..300).filter(|row| row % 7 != 2).collect();
    for n_out in [1, 8] {
        let (weight, bias) = (
            narrow(&values.tensor(&[n_out, 37])),
            narrow(&values.tensor(&[n_out])),
        );
        let small = SmallLinear::new(&weight, Some(&bias)).unwrap();
        let mut work = Workspace::default();
        let mut ys = vec![UNTOUCHED; rows.len() * n_out];
        small.write(&floats(&xs), &mut ys, Rows::Some(&rows), &mut work);
        let exact = floats(&kernels::linear(&xs, &weight, Some(&bias)).unwrap());
        for (ys, row) in ys.chunks(n_out).zip(&rows) {
            for (y, exact) in ys.iter().zip(&exact[row * n_out..]) {
                // Sums of 37 terms, in another order.
                assert!((y - exact).abs() <= 1e-4, "row {row}: {y}, {exact}");
            }
        }
        assert_eq!(work.take_macs(), (rows.len() * n_out * 37) as u64);
    }
}

/// The rows and heads of two images, as lists.
#[derive(Default)]
struct Batch {
    rows: Vec<usize>,
    heads: Vec<usize>,
    images: Vec<ImageHeads>,
}

impl Batch {
    /// Takes each image's kept rows, the heads to compute and those whose values pass through.
    fn new(kept: &[Vec<usize>], on: [(&[usize], &[usize]); 2]) -> Self {
        let mut batch = Self::default();
        for (kept, (computed, passing)) in kept.iter().zip(on) {
            let start = batch.rows.len();
            batch.rows.extend(kept);
            let first = batch.heads.len();
            batch.heads.extend(computed.iter().chain(passing));
            batch.images.push(ImageHeads {
                rows: start..batch.rows.len(),
                heads: first..first + computed.len(),
                passing: first + computed.len()..batch.heads.len(),
            });
        }
        batch
    }

    fn images(&self) -> ImageRows<'_> {
        ImageRows {
            rows: &self.rows,
            heads: &self.heads,
            images: &self.images,
        }
    }
}

#[test]
fn attention_attends_among_the_rows_and_heads_that_are_asked_for() {
    let mut values = Values::new(4);
    let (b, n, heads, d) = (2, 23, 3, 20);
    let [q, k, v] = [(); 3].map(|()| narrow(&values.tensor(&[b, n, heads * d])));
    let mask = narrow(&values.token_mask(b, n, 0.5));
    let kept: Vec<Vec<usize>> = mask
        .to_vec2::<f32>()
        .unwrap()
        .iter()
        .enumerate()
        .map(|(image, row)| {
            (0..n)
                .filter(|t| row[*t] != 0.0)
                .map(|t| image * n + t)
                .collect()
        })
        .collect();
    // Heads computed, and heads whose values pass through.
    let on: [(&[usize], &[usize]); 2] = [(&[0, 2], &[]), (&[], &[1])];
    let batch = Batch::new(&kept, on);
    let mut work = Workspace::default();
    let mut ys = vec![UNTOUCHED; b * n * heads * d];
    let qkv = floats(&Tensor::cat(&[&q, &k, &v], 2).unwrap());
    let sizes = HeadSizes {
        num_heads: heads,
        width: d,
    };
    attend(&qkv, &mut ys, sizes, batch.images(), &mut work);
    let qkv = Qkv {
        q: &q,
        k: &k,
        v: &v,
    };
    let exact = kernels::attention(qkv, heads, Some(&mask), HeadGate::All).unwrap();
    let (exact, v) = (floats(&exact), floats(&v));
    for (row, found) in ys.chunks(heads * d).enumerate() {
        for head in 0..heads {
            let place = row * heads * d + head * d;
            let found = &found[head * d..][..d];
            let (computed, passing) = on[row / n];
            let is_kept = kept[row / n].contains(&row);
            if is_kept && computed.contains(&head) {
                assert_eq!(found, &exact[place..][..d], "row {row}, head {head}");
            } else if is_kept && passing.contains(&head) {
                assert_eq!(found, &v[place..][..d], "row {row}, head {head}");
            } else {
                assert!(
                    found.iter().all(|y| *y == UNTOUCHED),
                    "row {row}, head {head}"
                );
            }
        }
    }
    assert_eq!(work.take_macs(), (2 * kept[0].len().pow(2) * d * 2) as u64);
}

#[test]
fn groups_that_do_not_divide_the_outputs_are_refused() {
    let weight = Tensor::zeros((40, 8), DType::F32, &candle_core::Device::Cpu).unwrap();
    let error = PreparedLinear::new(&weight, None, 12).unwrap_err();
    assert!(error.to_string().contains("divisor of 40"));
}
