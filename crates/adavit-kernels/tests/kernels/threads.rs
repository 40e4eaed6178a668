//! Results are the same bits for any number of threads.

use adavit_kernels::{self as kernels, HeadGate, Qkv};
use adavit_kernels_testing::{Values, evaluate, flat};
use candle_core::{DType, Result, Tensor};

/// One block of a vision transformer with every gate, and a loss.
fn block(xs: &[Tensor]) -> Result<Tensor> {
    let [x, weight, inner, outer, vector, heads, images, tokens] = xs else {
        candle_core::bail!("expected eight inputs, found {}", xs.len());
    };
    let mask = tokens.detach().ge(0.0)?.to_dtype(tokens.dtype())?;
    let normal = kernels::layer_norm(x, vector, vector, 1e-6)?;
    let q = kernels::linear(&normal, weight, Some(vector))?;
    let qkv = Qkv {
        q: &q,
        k: &normal,
        v: &q,
    };
    let ys = kernels::attention(qkv, 4, Some(&mask), HeadGate::Full(heads))?;
    let ys = kernels::gate_tokens(&kernels::linear(&ys, weight, None)?, tokens)?;
    let x = kernels::gated_residual(x, &ys, images)?;
    let hidden = kernels::linear_gelu(&x, inner, &inner.mean(1)?)?;
    let ys = kernels::linear(&kernels::gelu(&hidden)?, outer, Some(vector))?;
    let x = kernels::gated_residual(&x, &ys, tokens)?;
    let logits = kernels::gate_groups(&x, heads)?.mean(1)?;
    kernels::cross_entropy(&logits, &kernels::softmax(&logits)?)
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let mut values = Values::new(1);
    let (b, n, c) = (9, 50, 64);
    let shapes: [&[usize]; 8] = [
        &[b, n, c],
        &[c, c],
        &[4 * c, c],
        &[c, 4 * c],
        &[c],
        &[b, 4],
        &[b],
        &[b, n],
    ];
    let inputs = shapes.map(|dims| (values.tensor(dims) * 0.5).unwrap());
    let weights = Tensor::ones((), DType::F64, &candle_core::Device::Cpu).unwrap();
    let run = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| {
            let found = evaluate(&block, &inputs, &weights, DType::F32);
            let mut all = vec![flat(&found.output)];
            all.extend(found.gradients.iter().map(flat));
            all
        })
    };
    let one = run(1);
    assert!(one.iter().flatten().all(|x| x.is_finite()));
    assert!(one == run(2), "two threads");
    assert!(one == run(5), "five threads");
}

#[test]
fn each_item_is_run_once_and_an_error_returned() {
    for threads in [1, 2, 5] {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build();
        pool.unwrap().install(|| {
            let mut items = vec![0; 17];
            let run = |index: usize, item: &mut usize| -> std::result::Result<(), String> {
                *item += index + 1;
                Ok(())
            };
            assert_eq!(kernels::side_by_side(&mut items, run), Ok(()));
            assert!(items.into_iter().eq(1..18));
            let run = |index: usize, _: &mut usize| {
                if index == 3 {
                    return Err("item 3".to_string());
                }
                Ok(())
            };
            let failed = kernels::side_by_side(&mut [0; 8], run);
            assert_eq!(failed, Err("item 3".to_string()));
        });
    }
    assert_eq!(
        kernels::side_by_side(&mut [(); 0], |_, ()| Err("never")),
        Ok(())
    );
}
