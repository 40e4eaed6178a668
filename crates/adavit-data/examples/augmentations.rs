//! Draws a sheet of every augmentation, of a picture or of one that this program draws.
//!
//! ```text
//! cargo run --release -p adavit-data --example augmentations -- OUT.png [PICTURE]
//! ```
//!
//! Each row is one operation at five magnitudes, or one setting with five draws; the first column is
//! the picture as it is. Rows are listed on the terminal.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for the terminal"
)]

use std::path::Path;
use std::process::ExitCode;

use adavit_data::{
    AffineFilter, Augment, ColorJitter, ErasingMode, Error, Normalization, Op, Picture, Result,
    Sampling, TrainCrop,
};

const SIDE: usize = 64;
const GAP: usize = 4;
const COLUMNS: usize = 6;
const SAMPLING: Sampling = Sampling {
    filter: AffineFilter::Bicubic,
    fill: [124, 116, 104],
};

/// A row of the sheet.
struct Row {
    name: &'static str,
    pictures: Vec<Picture>,
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("augmentations: {error}");
            ExitCode::from(if error.is_input_error() { 2 } else { 3 })
        }
    }
}

fn run() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (out, picture) = match &args[..] {
        [out] => (out, drawn()?),
        [out, path] => (out, read(Path::new(path))?),
        _ => {
            return Err(Error::Setting(
                "usage: augmentations OUT.png [PICTURE]".to_owned(),
            ));
        }
    };
    let mut rows = operations(&picture);
    rows.extend(settings(&picture)?);
    for (number, row) in rows.iter().enumerate() {
        println!("{:2}  {}", number + 1, row.name);
    }
    write(Path::new(out), &picture, &rows)
}

/// A house, a tree and a sun under a sky: edges, flat parts, a gradient and many colours.
fn drawn() -> Result<Picture> {
    let mut bytes = Vec::with_capacity(SIDE * SIDE * 3);
    // The drawing has 64 pixels in each direction.
    for y in 0..64 {
        for x in 0..64 {
            bytes.extend(color(x, y));
        }
    }
    Picture::new(3, (SIDE, SIDE), bytes).map_err(Error::Setting)
}

fn color(x: i32, y: i32) -> [u8; 3] {
    let circle = |cx: i32, cy: i32, r: i32| (x - cx).pow(2) + (y - cy).pow(2) <= r * r;
    if circle(52, 11, 7) {
        [250, 205, 60]
    } else if circle(14, 28, 10) {
        // Leaves in two greens.
        if (x * 3 + y * 5) % 7 < 3 {
            [40, 120, 45]
        } else {
            [70, 150, 60]
        }
    } else if (12..16).contains(&x) && (30..50).contains(&y) {
        [110, 70, 40]
    } else if (26..56).contains(&x) && (30..50).contains(&y) {
        house(x, y)
    } else if (18..30).contains(&y) && (x - 41).abs() <= (y - 18) * 3 / 2 {
        [165, 50, 45]
    } else if y >= 50 {
        [60, (120 - y) as u8 + ((x * 7 + y * 3) % 5) as u8 * 4, 50]
    } else {
        [(90 + 2 * y) as u8, (150 + y) as u8, (230 - y / 2) as u8]
    }
}

fn house(x: i32, y: i32) -> [u8; 3] {
    let window = (34..41).contains(&y) && ((30..36).contains(&x) || (47..53).contains(&x));
    if window && (x == 33 || x == 50 || y == 37) {
        [240, 240, 235]
    } else if window {
        [70, 110, 160]
    } else if (39..45).contains(&x) && y >= 38 {
        [95, 60, 35]
    } else if y % 5 == 0 {
        [200, 175, 150]
    } else {
        [225, 205, 180]
    }
}

/// The centre of a picture file.
fn read(path: &Path) -> Result<Picture> {
    let wrong = |message: String| Error::Picture {
        path: path.to_path_buf(),
        message,
    };
    let decoded = image::open(path).map_err(|error| wrong(error.to_string()))?;
    let pixels = decoded.to_rgb8();
    let size = (pixels.height() as usize, pixels.width() as usize);
    let picture = Picture::new(3, size, pixels.into_raw()).map_err(wrong)?;
    Augment::default()
        .keyed(0, 0)
        .train_picture(0, picture, (SIDE, SIDE))
}

/// One row for each operation, at five magnitudes.
fn operations(picture: &Picture) -> Vec<Row> {
    let rows = color_operations().into_iter().chain(moves());
    let row = |(name, ops): (&'static str, [Op; 5])| Row {
        name,
        pictures: ops.map(|op| op.apply(picture.clone(), SAMPLING)).into(),
    };
    rows.map(row).collect()
}

fn color_operations() -> Vec<(&'static str, [Op; 5])> {
    vec![
        (
            "AutoContrast, Equalize, Invert, Color(0), Color(1.9)",
            [
                Op::AutoContrast,
                Op::Equalize,
                Op::Invert,
                Op::Color(0.0),
                Op::Color(1.9),
            ],
        ),
        ("Posterize: 5 to 1 bits", [5, 4, 3, 2, 1].map(Op::Posterize)),
        (
            "Solarize from 230, 180, 128, 64, 0 on",
            [230.0, 180.0, 128.0, 64.0, 0.0].map(Op::Solarize),
        ),
        (
            "SolarizeAdd 22 to 110",
            [22, 44, 66, 88, 110].map(Op::SolarizeAdd),
        ),
        (
            "Contrast 0.1 to 1.9",
            [0.1, 0.5, 0.8, 1.4, 1.9].map(Op::Contrast),
        ),
        (
            "Brightness 0.1 to 1.9",
            [0.1, 0.5, 0.8, 1.4, 1.9].map(Op::Brightness),
        ),
        (
            "Sharpness 0 to 5",
            [0.0, 0.5, 1.9, 3.0, 5.0].map(Op::Sharpness),
        ),
        (
            "Hue -0.3 to 0.5 of a turn",
            [-0.3, -0.1, 0.1, 0.3, 0.5].map(Op::Hue),
        ),
    ]
}

fn moves() -> Vec<(&'static str, [Op; 5])> {
    vec![
        (
            "Rotate -30 to 30 degrees",
            [-30.0, -15.0, 8.0, 15.0, 30.0].map(Op::Rotate),
        ),
        (
            "ShearX -0.3 to 0.3",
            [-0.3, -0.15, 0.1, 0.2, 0.3].map(Op::ShearX),
        ),
        (
            "ShearY -0.3 to 0.3",
            [-0.3, -0.15, 0.1, 0.2, 0.3].map(Op::ShearY),
        ),
        (
            "TranslateX -28 to 28 pixels",
            [-28.0, -14.0, 7.0, 14.0, 28.0].map(Op::TranslateX),
        ),
        (
            "TranslateY -28 to 28 pixels",
            [-28.0, -14.0, 7.0, 14.0, 28.0].map(Op::TranslateY),
        ),
        (
            "GaussianBlur 0.5 to 4",
            [0.5, 1.0, 1.5, 2.0, 4.0].map(Op::GaussianBlur),
        ),
    ]
}

/// One row for each setting, with five draws.
fn settings(picture: &Picture) -> Result<Vec<Row>> {
    let row = |(name, augment): Setting| -> Result<Row> {
        let pictures = (0..5).map(|sample| varied(&augment, sample, picture));
        Ok(Row {
            name,
            pictures: pictures.collect::<Result<_>>()?,
        })
    };
    let rows = crops().into_iter().chain(policies()?).chain(erasings());
    rows.map(row).collect()
}

type Setting = (&'static str, Augment);

fn crops() -> [Setting; 3] {
    let off = Augment::default();
    let crop = |train_crop_mode| Augment {
        train_crop_mode,
        hflip: 0.5,
        ..off
    };
    let jitter = Augment {
        color_jitter: Some(ColorJitter {
            hue: 0.1,
            ..ColorJitter::of(0.4)
        }),
        ..off
    };
    [
        (
            "train_crop_mode = \"rrc\", hflip = 0.5",
            crop(TrainCrop::Rrc),
        ),
        (
            "train_crop_mode = \"src\", hflip = 0.5",
            crop(TrainCrop::Src),
        ),
        ("color_jitter = [0.4, 0.4, 0.4, 0.1]", jitter),
    ]
}

fn policies() -> Result<[Setting; 3]> {
    let policy = |text: &str| -> Result<Augment> {
        Ok(Augment {
            auto_augment: Some(text.parse()?),
            ..Augment::default()
        })
    };
    Ok([
        (
            "auto_augment = \"rand-m9-n2-p1-mstd0.5-inc1\"",
            policy("rand-m9-n2-p1-mstd0.5-inc1")?,
        ),
        ("auto_augment = \"ta_wide\"", policy("ta_wide")?),
        ("auto_augment = \"3a\"", policy("3a")?),
    ])
}

fn erasings() -> [Setting; 3] {
    let erasing = |remode| Augment {
        reprob: 1.0,
        remode,
        recount: 2,
        ..Augment::default()
    };
    [
        (
            "reprob, recount = 2, remode = \"const\"",
            erasing(ErasingMode::Const),
        ),
        (
            "reprob, recount = 2, remode = \"rand\"",
            erasing(ErasingMode::Rand),
        ),
        (
            "reprob, recount = 2, remode = \"pixel\"",
            erasing(ErasingMode::Pixel),
        ),
    ]
}

/// The picture after all that training does to it, normalised and back.
fn varied(augment: &Augment, sample: u64, picture: &Picture) -> Result<Picture> {
    let normalization = Normalization::imagenet();
    let keyed = augment.keyed(7, 0).filled_with_mean(&normalization);
    let varied = keyed.train_picture(sample, picture.clone(), (SIDE, SIDE))?;
    let plane = |c: usize| varied.bytes()[c..].iter().step_by(3).copied();
    let planes: Vec<u8> = (0..3).flat_map(plane).collect();
    let mut values = normalization.apply(&planes);
    keyed.erase_values(sample, &mut values, [3, SIDE, SIDE]);
    let byte = |i: usize| {
        let (pixel, c) = (i / 3, i % 3);
        let value = f64::from(values[c * SIDE * SIDE + pixel]);
        ((value * normalization.std[c] + normalization.mean[c]) * 255.0).round() as u8
    };
    let bytes = (0..3 * SIDE * SIDE).map(byte).collect();
    Picture::new(3, (SIDE, SIDE), bytes).map_err(Error::Setting)
}

fn write(path: &Path, picture: &Picture, rows: &[Row]) -> Result<()> {
    let step = SIDE + GAP;
    let (height, width) = (rows.len() * step + GAP, COLUMNS * step + GAP);
    let mut sheet = vec![255; height * width * 3];
    for (row, Row { pictures, .. }) in rows.iter().enumerate() {
        for (column, picture) in std::iter::once(picture).chain(pictures).enumerate() {
            for (y, line) in picture.bytes().chunks_exact(SIDE * 3).enumerate() {
                let first = (row * step + GAP + y) * width + column * step + GAP;
                sheet[first * 3..][..SIDE * 3].copy_from_slice(line);
            }
        }
    }
    let (width, height) = (width as u32, height as u32);
    image::save_buffer(path, &sheet, width, height, image::ColorType::Rgb8).map_err(|error| {
        Error::Picture {
            path: path.to_path_buf(),
            message: format!("writing the sheet: {error}"),
        }
    })
}
