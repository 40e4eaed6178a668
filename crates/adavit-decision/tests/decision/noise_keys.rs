//! The key of each axis's noise, on which published results depend.

use adavit_decision::Axis;
use adavit_gumbel::Site;

#[test]
fn the_noise_of_each_axis_has_the_key_of_the_published_runs() {
    let keys = [(Axis::Blocks, 0), (Axis::Heads, 1), (Axis::Tokens, 2)];
    for (axis, key) in keys {
        for block in [0, 7] {
            assert_eq!(axis.site(block), Site::new(block, key), "{axis:?}");
        }
    }
}
