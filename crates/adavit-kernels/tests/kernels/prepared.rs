//! Inference on slices: equal to the differentiable operations, and only what was asked for.

use std::ops::Range;

use adavit_kernels::{
    self as kernels, ConvolutionPlaces, HeadGate, ImageHeads, Images, Parts, PixelGrid,
    PreparedConvolution, PreparedLayerNorm, PreparedLinear, Rows, SmallLinear, Work, attend,
};
use adavit_kernels_testing::{Values, flat};
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
    let mut parts = Parts::default();
    for case in &cases {
        parts.clear();
        for (rows, inner, columns) in case {
            parts.push(rows.iter().copied(), inner, columns);
        }
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
    let mut part = Parts::default();
    part.push(0..53, &[0..40], &[0..72]);
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
            let mut parts = Parts::default();
            parts.push(rows.iter().copied(), inner, columns);
            let mut ys = vec![UNTOUCHED; 67 * n_out];
            linear.write(&floats(&xs), &mut ys, &parts, &mut Work::default());
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
    let mut parts = Parts::default();
    parts.push([1, 2], &[0..8], &a);
    parts.push([5], &[0..8], &a);
    parts.push([7, 9], &[0..8], &b);
    assert_eq!(parts.rows(), [1, 2, 5, 7, 9]);
    assert_eq!(parts.macs(), 5 * 8 * 16);
    parts.clear();
    assert_eq!((parts.rows().len(), parts.macs()), (0, 0));
}

#[test]
#[should_panic(expected = "parts ascend")]
fn rows_of_two_parts_may_not_be_the_same() {
    let weight = Tensor::zeros((32, 8), DType::F32, &candle_core::Device::Cpu).unwrap();
    let linear = PreparedLinear::new(&weight, None, 16).unwrap();
    let mut parts = Parts::default();
    parts.push([3], &[0..8], &[0..16]);
    parts.push([3], &[0..8], &[16..32]);
    let mut ys = vec![0.0; 4 * 32];
    linear.write(&[0.0; 32], &mut ys, &parts, &mut Work::default());
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
        let mut work = Work::default();
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
    let (mut rows, mut numbers, mut images) = (Vec::new(), Vec::new(), Vec::new());
    for (kept, (computed, passing)) in kept.iter().zip(on) {
        let start = rows.len();
        rows.extend(kept);
        let first = numbers.len();
        numbers.extend(computed.iter().chain(passing));
        images.push(ImageHeads {
            rows: start..rows.len(),
            heads: first..first + computed.len(),
            passing: first + computed.len()..numbers.len(),
        });
    }
    let images = Images {
        rows: &rows,
        heads: &numbers,
        images: &images,
    };
    let mut work = Work::default();
    let mut ys = vec![UNTOUCHED; b * n * heads * d];
    let qkv = floats(&Tensor::cat(&[&q, &k, &v], 2).unwrap());
    attend(&qkv, &mut ys, (heads, d), images, &mut work);
    let exact = kernels::attention((&q, &k, &v), heads, Some(&mask), HeadGate::All).unwrap();
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

/// Images `(B, C, height, width)` with a zero around them, channels last.
fn padded_pixels(xs: &Tensor) -> Vec<f32> {
    let padded = xs.pad_with_zeros(2, 1, 1).unwrap();
    let padded = padded.pad_with_zeros(3, 1, 1).unwrap();
    floats(&padded.permute((0, 2, 3, 1)).unwrap())
}

#[test]
fn convolutions_read_windows_where_they_are_and_write_where_told() {
    for (b, channels, n_out, (height, width), stride) in [
        (3, 1, 16, (28, 28), 1),
        (2, 16, 32, (9, 13), 2),
        (1, 3, 40, (5, 4), 2),
        (2, 5, 7, (1, 1), 1),
    ] {
        let mut values = Values::new(3);
        let xs = values.tensor(&[b, channels, height, width]);
        let weight = (values.tensor(&[n_out, channels, 3, 3]) * 0.2).unwrap();
        let bias = values.tensor(&[n_out]);
        let window = kernels::Window {
            kernel_size: 3,
            stride,
            padding: 1,
        };
        let windows = kernels::im2col(&xs, window).unwrap();
        let flat_weight = weight.flatten_from(1).unwrap();
        let expected = kernels::linear_gelu(&windows, &flat_weight, &bias).unwrap();

        let (rows, columns) = (height.div_ceil(stride), width.div_ceil(stride));
        let padded_row = width + 2;
        let windows = PixelGrid {
            first: 0,
            column: stride,
            row: stride * padded_row,
            image: (height + 2) * padded_row,
        };
        // A gap before each image, each row and each pixel.
        let outputs = PixelGrid {
            first: 5,
            column: 2,
            row: 2 * columns + 1,
            image: rows * (2 * columns + 1) + 3,
        };
        let places = ConvolutionPlaces {
            size: (rows, columns),
            windows,
            input_row: padded_row,
            outputs,
        };
        let pixels = padded_pixels(&xs);
        let conv = PreparedConvolution::new(&narrow(&weight), &narrow(&bias), places).unwrap();
        let mut ys = vec![UNTOUCHED; (outputs.first + b * outputs.image) * n_out];
        let mut work = Work::default();
        conv.write_gelu(b, &pixels, &mut ys, &mut work);

        let macs = b * rows * columns * n_out * channels * 9;
        assert_eq!(work.take_macs(), macs as u64);
        for (at, expected) in flat(&expected).into_iter().enumerate() {
            let (pixel, channel) = (at / n_out, at % n_out);
            let (image, y) = (pixel / (rows * columns), pixel / columns % rows);
            let place = outputs.first
                + image * outputs.image
                + y * outputs.row
                + pixel % columns * outputs.column;
            let found = std::mem::replace(&mut ys[place * n_out + channel], UNTOUCHED);
            assert!(
                (f64::from(found) - expected).abs() <= 1e-4,
                "at {at}: {found}, {expected}"
            );
        }
        assert!(ys.iter().all(|y| *y == UNTOUCHED), "the gaps stay");
    }
}

/// Where 6 x 6 pixels lie, each image's in 64 values.
const GRID: PixelGrid = PixelGrid {
    first: 0,
    column: 1,
    row: 8,
    image: 64,
};

/// A convolution of 2 channels to 4 on [`GRID`] that writes to `outputs`.
fn small_convolution(outputs: PixelGrid) -> candle_core::Result<PreparedConvolution> {
    let weight = Tensor::zeros((4, 2, 3, 3), DType::F32, &candle_core::Device::Cpu)?;
    let bias = Tensor::zeros(4, DType::F32, &candle_core::Device::Cpu)?;
    let places = ConvolutionPlaces {
        size: (6, 6),
        windows: GRID,
        input_row: 8,
        outputs,
    };
    PreparedConvolution::new(&weight, &bias, places)
}

#[test]
fn convolutions_whose_outputs_would_meet_are_errors() {
    assert!(small_convolution(GRID).is_ok());
    let huge = 1 << (usize::BITS - 1);
    for outputs in [
        PixelGrid { column: 0, ..GRID },
        PixelGrid { row: 5, ..GRID },
        PixelGrid { image: 40, ..GRID },
        PixelGrid {
            column: huge,
            ..GRID
        },
        PixelGrid { row: huge, ..GRID },
    ] {
        let error = small_convolution(outputs).unwrap_err();
        assert!(error.to_string().contains("different places"), "{error}");
    }
}

#[test]
#[should_panic(expected = "outputs within bounds")]
fn outputs_whose_places_would_wrap_around_are_refused() {
    let image = 1 << (usize::BITS - 1);
    let conv = small_convolution(PixelGrid { image, ..GRID }).unwrap();
    let mut work = Work::default();
    conv.write_gelu(0, &[], &mut [], &mut work);
    conv.write_gelu(2, &[0.0; 256], &mut [0.0; 512], &mut work);
}
