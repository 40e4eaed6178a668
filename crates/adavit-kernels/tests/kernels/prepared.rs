//! Inference on slices: equal to the differentiable operations, and only what was asked for.

use std::ops::Range;

use crate::common::{Values, flat};
use adavit_kernels::{
    self as kernels, HeadGate, ImageHeads, Part, PreparedLayerNorm, PreparedLinear, Rows, Work,
    attend,
};
use candle_core::{DType, Tensor};

/// Marks what no one may write.
const UNTOUCHED: f32 = -77.0;

fn narrow(xs: &Tensor) -> Tensor {
    xs.to_dtype(DType::F32).unwrap()
}

fn floats(xs: &Tensor) -> Vec<f32> {
    narrow(xs).flatten_all().unwrap().to_vec1().unwrap()
}

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
    for case in &cases {
        let parts: Vec<Part> = case
            .iter()
            .map(|(rows, inner, columns)| Part {
                rows: Rows::Some(rows),
                inner,
                columns,
            })
            .collect();
        let mut work = Work::default();
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
    let part = [Part {
        rows: Rows::All(53),
        inner: &[0..40],
        columns: &[0..72],
    }];
    let mut work = Work::default();
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
    let on: [&[usize]; 2] = [&[0, 2], &[]];
    let images: Vec<ImageHeads> = kept
        .iter()
        .zip(on)
        .map(|(rows, heads)| ImageHeads { rows, heads })
        .collect();
    let mut work = Work::default();
    let mut ys = vec![UNTOUCHED; b * n * heads * d];
    let qkv = (&*floats(&q), &*floats(&k), &*floats(&v));
    attend(qkv, &mut ys, (heads, d), &images, &mut work);
    let exact = kernels::attention((&q, &k, &v), heads, Some(&mask), HeadGate::All).unwrap();
    let exact = floats(&exact);
    for (row, (found, exact)) in ys
        .chunks(heads * d)
        .zip(exact.chunks(heads * d))
        .enumerate()
    {
        for head in 0..heads {
            let (found, exact) = (&found[head * d..][..d], &exact[head * d..][..d]);
            let image = row / n;
            if kept[image].contains(&row) && on[image].contains(&head) {
                assert_eq!(found, exact, "row {row}, head {head}");
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
fn odd_groups_are_refused() {
    let weight = Tensor::zeros((40, 8), DType::F32, &candle_core::Device::Cpu).unwrap();
    let error = PreparedLinear::new(&weight, None, 10).unwrap_err();
    assert!(error.to_string().contains("multiple of 16"));
}
