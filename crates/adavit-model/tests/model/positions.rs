//! Position embeddings are resampled as by timm; `positions/make.py` wrote what is expected.

use adavit_model::{read_tensors, resample_pos_embed};
use candle_core::Tensor;

use crate::common::{difference, file, values};

#[test]
fn position_embeddings_are_resampled_as_by_timm() {
    let tensors = read_tensors(&file("positions/positions.safetensors")).unwrap();
    let grid = |text: &str| -> (usize, usize) {
        let (rows, columns) = text.split_once('x').unwrap();
        (rows.parse().unwrap(), columns.parse().unwrap())
    };
    let mut compared = 0;
    for (name, expected) in &tensors {
        let parts: Vec<&str> = name.split('/').collect();
        let [prefix, from, to] = parts[..] else {
            continue;
        };
        let table = &tensors[&format!("{prefix}/{from}")];
        let prefix: usize = prefix.parse().unwrap();
        let found = resample_pos_embed(table, prefix, grid(from), grid(to)).unwrap();
        // Float32 sums of 16 to 64 terms in another order.
        let largest = difference(&found, expected);
        assert!(largest < 2e-6, "{name}: {largest}");
        let untouched = |tensor: &Tensor| values(&tensor.narrow(1, 0, prefix).unwrap());
        assert_eq!(untouched(&found), untouched(table));
        compared += 1;
    }
    assert_eq!(compared, 6);
    let table = &tensors["1/6x6"];
    assert!(resample_pos_embed(table, 1, (6, 7), (3, 3)).is_err());
    assert!(resample_pos_embed(table, 1, (6, 6), (0, 3)).is_err());
}
