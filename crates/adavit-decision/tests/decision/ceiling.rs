//! The ceiling of an image's MACs: it holds, it is reached, and it touches nothing below it.

use adavit_decision::{
    BlockKept, Ceiling, DecisionConfig, GateLogits, Geometry, HardPolicy, PolicyAt, Thresholds,
};
use proptest::prelude::*;

use crate::helpers::{HEAD_MODES, nano};

/// A small geometry of odd sizes, and decisions on it.
fn variants() -> impl Strategy<Value = (Geometry, DecisionConfig)> {
    let sizes = (1..12_usize, 1..5_usize, 1..9_usize, 1..5_usize, 1..6_usize);
    let heads = prop::sample::select(&HEAD_MODES[..]);
    let decides = (heads, any::<[bool; 3]>(), 0..4_usize, 0..3_usize);
    let thresholds = [0.05..0.95, 0.05..0.95, 0.05..0.95];
    (sizes, decides, thresholds).prop_map(|(sizes, decides, [tokens, heads, blocks])| {
        let (num_tokens, num_heads, width, depth, ratio) = sizes;
        let (ada_head, [ada_token, ada_token_with_mlp, ada_layer], keep_layers, start) = decides;
        let embed_dim = num_heads * width;
        let geometry = Geometry {
            num_tokens,
            embed_dim,
            depth,
            num_heads,
            hidden_dim: num_heads * ratio,
            embed_macs: 301,
            head_macs: 77,
        };
        let config = DecisionConfig {
            ada_token,
            ada_token_with_mlp,
            ada_token_start_layer: start,
            ada_head,
            ada_layer,
            keep_layers,
            thresholds: Thresholds {
                tokens,
                heads,
                blocks,
            },
            ..DecisionConfig::default()
        };
        (geometry, config)
    })
}

/// The logits of one block of one image: few values, so that ties are common.
#[derive(Debug, Clone)]
struct Logits {
    patches: Vec<f32>,
    heads: Vec<f32>,
    sublayers: Vec<f32>,
}

impl Logits {
    fn of(&self) -> GateLogits<'_> {
        GateLogits {
            patches: &self.patches,
            heads: &self.heads,
            sublayers: &self.sublayers,
        }
    }
}

/// Logits of all blocks, from numbers that are used in turn.
fn logits(geometry: &Geometry, config: &DecisionConfig, numbers: &[i8]) -> Vec<Logits> {
    let mut numbers = numbers.iter().cycle().map(|x| f32::from(*x) * 0.5);
    let mut take = |gated: bool, n: usize| -> Vec<f32> {
        let n = if gated { n } else { 0 };
        numbers.by_ref().take(n).collect()
    };
    let blocks = (0..geometry.depth).map(|block| Logits {
        patches: take(config.gates_tokens(block), geometry.num_tokens - 1),
        heads: take(config.gates_heads(block).is_some(), geometry.num_heads),
        sublayers: take(config.gates_sublayers(block), 2),
    });
    blocks.collect()
}

/// The policy of one image whose gates are what the logits say.
fn decided(geometry: &Geometry, config: &DecisionConfig, logits: &[Logits]) -> HardPolicy {
    let mut policy = HardPolicy::all(geometry, 1);
    let Thresholds {
        tokens,
        heads,
        blocks,
    } = config.thresholds;
    for (block, of_block) in logits.iter().enumerate() {
        let set = |bits: &mut [bool], logits: &[f32], threshold: f64| {
            for (bit, logit) in bits.iter_mut().zip(logits) {
                *bit = adavit_gumbel::is_on(*logit, threshold);
            }
        };
        set(policy.patches_mut(block, 0), &of_block.patches, tokens);
        set(policy.heads_mut(block, 0), &of_block.heads, heads);
        set(policy.sublayers_mut(block, 0), &of_block.sublayers, blocks);
    }
    policy
}

/// The policy within a ceiling.
fn fitted(
    geometry: &Geometry,
    config: &DecisionConfig,
    logits: &[Logits],
    max_macs: u64,
) -> HardPolicy {
    let mut policy = decided(geometry, config, logits);
    let mut ceiling = Ceiling::new(max_macs, config, geometry, 1).unwrap();
    for (block, logits) in logits.iter().enumerate() {
        ceiling.fit(&mut policy, PolicyAt { block, image: 0 }, &logits.of());
    }
    let spent = ceiling.spent()[0] + geometry.head_macs;
    let macs = geometry.image_macs(config, &policy.image_kept(0));
    assert_eq!(
        spent, macs,
        "what the ceiling counts is what the policy costs"
    );
    policy
}

/// What the bits of `some` are a part of.
fn is_part_of(some: &HardPolicy, all: &HardPolicy) -> bool {
    let part = |some: &[bool], all: &[bool]| some.iter().zip(all).all(|(some, all)| *all || !some);
    (0..all.depth()).all(|block| {
        part(some.tokens(block, 0), all.tokens(block, 0))
            && part(some.heads(block, 0), all.heads(block, 0))
            && part(&some.sublayers(block, 0), &all.sublayers(block, 0))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_image_costs_more_than_its_ceiling(
        (geometry, config) in variants(),
        numbers in prop::collection::vec(-12..12_i8, 1..80),
    ) {
        let logits = logits(&geometry, &config, &numbers);
        let free = decided(&geometry, &config, &logits);
        let macs = |policy: &HardPolicy| geometry.image_macs(&config, &policy.image_kept(0));
        let (floor, most) = (geometry.floor_macs(&config), geometry.most_macs(&config));
        prop_assert!((floor..=most).contains(&macs(&free)));
        for step in 0..=16 {
            let max_macs = floor + (most - floor) * step / 16;
            let policy = fitted(&geometry, &config, &logits, max_macs);
            prop_assert!(macs(&policy) <= max_macs);
            prop_assert!(is_part_of(&policy, &free), "a ceiling turns gates off, none on");
            if macs(&free) <= max_macs {
                prop_assert!(policy == free, "what fits is not touched");
            }
        }
        // The floor is reached exactly.
        prop_assert_eq!(macs(&fitted(&geometry, &config, &logits, floor)), floor);
    }

    #[test]
    fn what_a_block_drops_does_not_fit(
        (geometry, config) in variants(),
        numbers in prop::collection::vec(-12..12_i8, 1..80),
        share in 0.0..1.0_f64,
    ) {
        // One block: what it may cost is all that there is.
        let geometry = Geometry { depth: 1, ..geometry };
        let logits = logits(&geometry, &config, &numbers);
        let free = decided(&geometry, &config, &logits);
        let (floor, most) = (geometry.floor_macs(&config), geometry.most_macs(&config));
        let max_macs = floor + ((most - floor) as f64 * share) as u64;
        let policy = fitted(&geometry, &config, &logits, max_macs);
        let kept = policy.block_kept(0, 0);
        let own = free.block_kept(0, 0);
        let with = |more: BlockKept| geometry.image_macs(&config, &[more]);
        let mut more = Vec::new();
        if own.patches > kept.patches {
            more.push(BlockKept { patches: kept.patches + 1, ..kept });
        }
        if own.heads > kept.heads {
            more.push(BlockKept { heads: kept.heads + 1, ..kept });
        }
        if own.attention && !kept.attention {
            more.push(BlockKept { attention: true, ..kept });
        }
        if own.mlp && !kept.mlp {
            more.push(BlockKept { mlp: true, ..kept });
        }
        for more in more {
            prop_assert!(with(more) > max_macs, "{kept:?} could be {more:?}");
        }
    }
}

/// One block of the small model, everything decided on.
fn one_block() -> (Geometry, DecisionConfig) {
    let geometry = Geometry { depth: 1, ..nano() };
    let config = DecisionConfig {
        keep_layers: 0,
        ..DecisionConfig::default()
    };
    (geometry, config)
}

#[test]
fn of_equal_gates_the_patch_with_the_lowest_index_goes_first() {
    let (geometry, config) = one_block();
    let config = DecisionConfig {
        thresholds: Thresholds {
            tokens: 0.5,
            ..config.thresholds
        },
        ..config
    };
    let logits = [Logits {
        patches: vec![2.0; 16],
        heads: vec![2.0; 4],
        sublayers: vec![2.0; 2],
    }];
    let most = geometry.most_macs(&config);
    let policy = fitted(&geometry, &config, &logits, most - 1);
    let mut expected = vec![true; 17];
    expected[1] = false;
    assert_eq!(policy.tokens(0, 0), expected);
    assert_eq!(policy.block_kept(0, 0).heads, 4);
    assert_eq!(policy.sublayers(0, 0), [true, true]);
}

#[test]
fn a_sublayer_stays_where_a_patch_loses_less() {
    let (geometry, config) = one_block();
    let logits = |mlp: f32| {
        let mut patches = vec![9.0; 16];
        patches[5] = 1.0;
        [Logits {
            patches,
            heads: vec![9.0; 4],
            sublayers: vec![9.0, mlp],
        }]
    };
    let most = geometry.most_macs(&config);
    // A margin of about 0.6 for the patch, of 0.7 or 0.1 for the MLP.
    let policy = fitted(&geometry, &config, &logits(0.7), most - 1);
    assert_eq!(policy.sublayers(0, 0), [true, true]);
    assert!(!policy.tokens(0, 0)[6]);
    let policy = fitted(&geometry, &config, &logits(0.1), most - 1);
    assert_eq!(policy.sublayers(0, 0), [true, false]);
    assert!(policy.tokens(0, 0)[6]);
    // Where half has to go, the MLP saves more for its margin than the other patches.
    let policy = fitted(&geometry, &config, &logits(4.0), most / 2);
    assert_eq!(policy.sublayers(0, 0), [true, false]);
}

#[test]
fn a_ceiling_below_the_floor_is_refused_with_the_floor() {
    let (geometry, config) = (nano(), DecisionConfig::default());
    let floor = geometry.floor_macs(&config);
    assert!(Ceiling::new(floor, &config, &geometry, 2).is_ok());
    let error = Ceiling::new(floor - 1, &config, &geometry, 2).unwrap_err();
    assert!(error.to_string().contains(&format!("at least {floor}")));
}
