//! Prepared convolutions: equal to windows and a linear map, in place, and only within bounds.

use adavit_kernels::{
    self as kernels, ConvolutionPlaces, PixelGrid, PreparedConvolution, Workspace,
};
use adavit_kernels_testing::{Values, flat};
use candle_core::{DType, Tensor};

use crate::slices::{UNTOUCHED, floats, narrow, panic_of};

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
        let mut work = Workspace::default();
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
fn outputs_whose_places_would_wrap_around_are_refused() {
    let image = 1 << (usize::BITS - 1);
    let conv = small_convolution(PixelGrid { image, ..GRID }).unwrap();
    let mut work = Workspace::default();
    conv.write_gelu(0, &[], &mut [], &mut work);
    let message = panic_of(|| {
        let mut work = Workspace::default();
        conv.write_gelu(2, &[0.0; 256], &mut [0.0; 512], &mut work);
    });
    assert!(message.contains("outputs within bounds"), "{message}");
}
