//! What a network may rely on from its noise: the distribution, the keys, the stream.

use adavit_gumbel::{Noise, ReplayedNoise, SeededNoise, Site};
use candle_core::{DType, Result, Tensor};

use crate::CPU;

fn logistic(noise: &mut dyn Noise, site: Site, shape: &[usize]) -> Result<Vec<f64>> {
    let xs = noise.logistic(site, shape, DType::F64, &CPU)?;
    xs.flatten_all()?.to_vec1()
}

/// The Kolmogorov-Smirnov distance between a sample and a distribution function, times √n.
fn kolmogorov_smirnov(mut xs: Vec<f64>, cdf: impl Fn(f64) -> f64) -> f64 {
    xs.sort_by(f64::total_cmp);
    let n = xs.len() as f64;
    let distance = xs.iter().enumerate().map(|(i, &x)| {
        let p = cdf(x);
        (p - i as f64 / n).max((i + 1) as f64 / n - p)
    });
    distance.fold(0., f64::max) * n.sqrt()
}

/// Values of √n D beyond this have a probability of 0.001 (Kolmogorov's limit distribution,
/// 2 exp(-2 x²)). The seeds are fixed, so a test passes or fails for good.
const CRITICAL: f64 = 1.949;

fn logistic_cdf(x: f64) -> f64 {
    1. / (1. + (-x).exp())
}

fn gumbel_cdf(x: f64) -> f64 {
    (-(-x).exp()).exp()
}

#[test]
fn noise_follows_its_distribution_along_a_stream() -> Result<()> {
    let mut noise = SeededNoise::new(7, 1, &[3, 1, 4, 1_281_166]);
    let xs = logistic(&mut noise, Site::new(2, 0), &[4, 5000])?;
    assert!(kolmogorov_smirnov(xs, logistic_cdf) < CRITICAL);
    let xs = noise.gumbel(Site::new(2, 1), &[4, 5000], DType::F64, &CPU)?;
    assert!(kolmogorov_smirnov(xs.flatten_all()?.to_vec1()?, gumbel_cdf) < CRITICAL);
    Ok(())
}

#[test]
fn noise_follows_its_distribution_across_samples_epochs_and_sites() -> Result<()> {
    // The first value of many neighbouring keys: near keys must not give near streams.
    let samples: Vec<u64> = (0..1000).collect();
    let (mut logistics, mut gumbels) = (Vec::new(), Vec::new());
    for epoch in 0..4 {
        let mut noise = SeededNoise::new(0, epoch, &samples);
        for block in 0..5 {
            let site = Site::new(block, 2);
            logistics.extend(logistic(&mut noise, site, &[1000, 1])?);
            let xs = noise.gumbel(Site::new(block, 3), &[1000], DType::F64, &CPU)?;
            gumbels.extend(xs.to_vec1::<f64>()?);
        }
    }
    assert!(kolmogorov_smirnov(logistics, logistic_cdf) < CRITICAL);
    assert!(kolmogorov_smirnov(gumbels, gumbel_cdf) < CRITICAL);
    Ok(())
}

#[test]
fn ones_come_at_their_rate_and_do_not_depend_on_the_batch() -> Result<()> {
    let site = Site::new(3, 300);
    let ones = |samples: &[u64], probability: f64| -> Result<Vec<Vec<f64>>> {
        let noise = SeededNoise::new(7, 1, samples);
        let shape = [samples.len(), 2000];
        let xs = noise.bernoulli(site, probability, &shape, DType::F64, &CPU)?;
        xs.to_vec2()
    };
    for probability in [0.1, 0.75] {
        let both = ones(&[3, 8], probability)?;
        for row in &both {
            assert!(row.iter().all(|x| *x == 0. || *x == 1.));
            let rate = row.iter().sum::<f64>() / 2000.;
            // Four standard deviations of a binomial.
            let tolerance = 4. * (probability * (1. - probability) / 2000.).sqrt();
            assert!((rate - probability).abs() < tolerance, "{rate}");
        }
        assert_ne!(both[0], both[1]);
        assert_eq!(ones(&[8], probability)?[0], both[1]);
    }
    assert_eq!(ones(&[3], 0.)?[0], [0.; 2000]);
    assert_eq!(ones(&[3], 1.)?[0], [1.; 2000]);
    Ok(())
}

#[test]
fn noise_of_a_sample_does_not_depend_on_its_batch_or_on_the_order_of_calls() -> Result<()> {
    let (a, b) = (Site::new(0, 1), Site::new(1, 0));
    let mut batch = SeededNoise::new(5, 2, &[10, 20, 30]);
    let first = logistic(&mut batch, a, &[3, 2, 4])?;
    let second = logistic(&mut batch, b, &[3, 2, 4])?;

    let mut other = SeededNoise::new(5, 2, &[30, 10]);
    let second_again = logistic(&mut other, b, &[2, 8])?;
    let first_again = logistic(&mut other, a, &[2, 8])?;
    assert_eq!(first_again, [&first[16..], &first[..8]].concat());
    assert_eq!(second_again, [&second[16..], &second[..8]].concat());
    Ok(())
}

#[test]
fn every_part_of_the_key_changes_the_noise() -> Result<()> {
    let draw = |seed, epoch, sample, block, axis| -> Result<Vec<f64>> {
        let mut noise = SeededNoise::new(seed, epoch, &[sample]);
        logistic(&mut noise, Site::new(block, axis), &[1, 4])
    };
    // One bit of each part, low and high.
    let all = [
        draw(0, 0, 0, 0, 0)?,
        draw(1, 0, 0, 0, 0)?,
        draw(1 << 63, 0, 0, 0, 0)?,
        draw(0, 1, 0, 0, 0)?,
        draw(0, 1 << 63, 0, 0, 0)?,
        draw(0, 0, 1, 0, 0)?,
        draw(0, 0, 1 << 63, 0, 0)?,
        draw(0, 0, 0, 1, 0)?,
        draw(0, 0, 0, 1 << 31, 0)?,
        draw(0, 0, 0, 0, 1)?,
        draw(0, 0, 0, 0, 1 << 31)?,
    ];
    for (i, xs) in all.iter().enumerate() {
        for ys in &all[i + 1..] {
            assert!(xs.iter().zip(ys).all(|(x, y)| x != y));
        }
    }
    Ok(())
}

#[test]
#[expect(clippy::unreadable_literal, reason = "as the generator prints them")]
fn the_stream_never_changes() -> Result<()> {
    // Printed by golden/noise.py. Logarithms differ by a few ulp between maths libraries,
    // hence the tolerance.
    let golden = [
        (
            SeededNoise::new(0, 0, &[0]),
            Site::new(0, 0),
            [
                1.6354858272446877,
                0.5383327772255035,
                -1.0372086223228907,
                -0.7567095448528028,
                0.12165302319610316,
            ],
            [
                1.7258195885691114,
                0.7770138846445684,
                -0.2931162977918867,
                -0.13228439132244937,
                0.4554390706816384,
            ],
        ),
        (
            SeededNoise::new(u64::MAX - 1, 3, &[49_999]),
            Site::new(11, 2),
            [
                2.8862065482886465,
                -2.2064900417547304,
                -0.2943106117966743,
                -0.9490612289992293,
                0.2980136060174412,
            ],
            [
                2.913472777588238,
                -0.8376491168871479,
                0.16123625182830953,
                -0.24394923104250155,
                0.5884249756507047,
            ],
        ),
    ];
    for (mut noise, site, logistics, gumbels) in golden {
        let xs = logistic(&mut noise, site, &[1, 20])?;
        let ys = noise.gumbel(site, &[1, 20], DType::F64, &CPU)?;
        let ys = ys.flatten_all()?.to_vec1::<f64>()?;
        for (i, at) in [0, 1, 7, 8, 19].into_iter().enumerate() {
            assert!(
                (xs[at] - logistics[i]).abs() < 1e-13,
                "{} {}",
                xs[at],
                logistics[i]
            );
            assert!(
                (ys[at] - gumbels[i]).abs() < 1e-13,
                "{} {}",
                ys[at],
                gumbels[i]
            );
        }
    }
    Ok(())
}

#[test]
fn noise_has_the_dtype_asked_for_and_the_same_values_rounded() -> Result<()> {
    let mut noise = SeededNoise::new(1, 1, &[1, 2]);
    let site = Site::new(0, 0);
    let exact = noise.logistic(site, &[2, 3], DType::F64, &CPU)?;
    for dtype in [DType::F32, DType::BF16, DType::F16] {
        let xs = noise.logistic(site, &[2, 3], dtype, &CPU)?;
        assert_eq!((xs.dtype(), xs.dims()), (dtype, &[2, 3][..]));
        let want = exact.to_dtype(dtype)?.to_dtype(DType::F64)?;
        assert_eq!(
            xs.to_dtype(DType::F64)?.to_vec2::<f64>()?,
            want.to_vec2::<f64>()?
        );
    }
    Ok(())
}

#[test]
fn an_empty_batch_has_empty_noise() -> Result<()> {
    let mut noise = SeededNoise::new(1, 1, &[]);
    let xs = noise.gumbel(Site::new(0, 0), &[0, 3], DType::F32, &CPU)?;
    assert_eq!(xs.dims(), [0, 3]);
    Ok(())
}

#[test]
fn a_batch_of_another_size_or_an_integer_dtype_is_refused() {
    let mut noise = SeededNoise::new(1, 1, &[4, 5]);
    let site = Site::new(0, 0);
    let error = noise
        .logistic(site, &[3, 2], DType::F32, &CPU)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("noise of 2 samples cannot have a batch of 3"),
        "{error}"
    );
    assert!(noise.logistic(site, &[], DType::F32, &CPU).is_err());
    assert!(noise.gumbel(site, &[2, 2], DType::U32, &CPU).is_err());
}

#[test]
fn recorded_noise_comes_back_in_the_order_of_the_calls() -> Result<()> {
    let recorded = [
        Tensor::new(&[1f32, 2.], &CPU)?,
        Tensor::new(&[[3f32], [4.]], &CPU)?,
    ];
    let mut noise = ReplayedNoise::new(recorded);
    assert_eq!(noise.remaining(), 2);
    assert_eq!(logistic(&mut noise, Site::new(9, 9), &[2])?, [1., 2.]);
    let second = noise.gumbel(Site::new(0, 0), &[2, 1], DType::F32, &CPU)?;
    assert_eq!(second.to_vec2::<f32>()?, [[3.], [4.]]);
    assert_eq!(noise.remaining(), 0);
    Ok(())
}

#[test]
fn a_recording_that_does_not_fit_says_where() -> Result<()> {
    let recorded = [Tensor::new(&[1f32, 2.], &CPU)?, Tensor::new(&[3f32], &CPU)?];
    let mut noise = ReplayedNoise::new(recorded);
    logistic(&mut noise, Site::new(0, 0), &[2])?;
    let error = logistic(&mut noise, Site::new(4, 1), &[1, 6])
        .unwrap_err()
        .to_string();
    let want = "noise call 2 (block 4, axis 1): expected shape [1, 6], found [1]";
    assert!(error.contains(want), "{error}");
    // The tensor is still there: a failed call takes nothing.
    assert_eq!(logistic(&mut noise, Site::new(4, 1), &[1])?, [3.]);
    let error = logistic(&mut noise, Site::new(5, 2), &[7])
        .unwrap_err()
        .to_string();
    let want = "noise call 3 (block 5, axis 2): expected shape [7], found the end of 2 recorded";
    assert!(error.contains(want), "{error}");
    Ok(())
}
