//! What a policy costs: known values, and what has to hold for every policy.

use adavit_decision::{
    Allocation, AllocatorConfig, BlockKept, DecisionConfig, Geometry, HeadDeactivation, Knot,
    PaperRounding,
};
use proptest::prelude::*;

use crate::helpers::{HEAD_MODES, deit_small, nano};

fn variants() -> impl Strategy<Value = DecisionConfig> {
    let heads = prop::sample::select(&HEAD_MODES[..]);
    (heads, any::<[bool; 3]>(), 0..3_usize, 0..3_usize).prop_map(
        |(ada_head, [ada_token, ada_token_with_mlp, ada_layer], keep_layers, start)| {
            DecisionConfig {
                ada_token,
                ada_token_with_mlp,
                ada_token_start_layer: start,
                ada_head,
                ada_layer,
                keep_layers,
                ..DecisionConfig::default()
            }
        },
    )
}

fn kept() -> impl Strategy<Value = BlockKept> {
    (0..=196_usize, 0..=6_usize, any::<bool>(), any::<bool>()).prop_map(
        |(patches, heads, attention, mlp)| BlockKept {
            patches,
            heads,
            attention,
            mlp,
        },
    )
}

#[test]
fn exact_macs_of_deit_small_are_the_known_values() {
    let geometry = deit_small();
    assert_eq!(geometry.dense_macs(), 4_598_882_304);
    let kept = geometry.image_macs(&DecisionConfig::default(), &[geometry.all(); 12]);
    assert_eq!(kept, 4_599_819_264);
}

#[test]
fn paper_macs_of_full_blocks_are_the_published_values() {
    let small = deit_small();
    assert_eq!(
        small.paper_block_macs(small.all(), PaperRounding::Published),
        379_147_776
    );
    let t2t_19 = Geometry {
        embed_dim: 448,
        num_heads: 7,
        hidden_dim: 3 * 448,
        ..small
    };
    assert_eq!(
        t2t_19.paper_block_macs(t2t_19.all(), PaperRounding::Published),
        431_042_304
    );
}

#[test]
fn paper_macs_lose_a_token_where_the_tables_do() {
    let geometry = deit_small();
    let macs = |tokens: usize| {
        let kept = BlockKept {
            patches: tokens - 1,
            ..geometry.all()
        };
        geometry.paper_block_macs(kept, PaperRounding::Published)
    };
    let (n, c) = (197, 384);
    let untruncated = |t: u64| 4 * t * c * c + 2 * t * t * c + 8 * t * c * c + 10 * n * c;
    let lost: Vec<u64> = (1..=197)
        .filter(|&t| macs(t as usize) == untruncated(t - 1))
        .collect();
    assert_eq!(lost, [13, 26, 51, 52, 53, 102, 104, 106, 117, 119, 121]);
}

#[test]
fn a_block_without_heads_costs_what_its_variant_says() {
    let geometry = deit_small();
    let none = BlockKept {
        patches: 49,
        heads: 0,
        attention: true,
        mlp: true,
    };
    let parts = |ada_head| {
        let config = DecisionConfig {
            ada_head: Some(ada_head),
            ..DecisionConfig::default()
        };
        geometry.block_parts(&config, 1, none)
    };
    let full = parts(HeadDeactivation::Full);
    assert_eq!(
        (full.qkv, full.attention, full.proj, full.mlp),
        (0, 0, 0, 0)
    );
    assert_eq!(full.decisions, (2 + 6 + 196) * 384);
    // V and the projection run, the MLP in full.
    let partial = parts(HeadDeactivation::Partial);
    assert_eq!(partial.qkv + partial.proj, 2 * 50 * 384 * 384);
    assert_eq!(partial.mlp, 2 * 50 * 384 * 1536);
    assert_eq!(parts(HeadDeactivation::HeadV2).mlp, 0);
}

proptest! {
    #[test]
    fn everything_kept_is_dense_plus_decision_networks(config in variants()) {
        let geometry = deit_small();
        let parts = geometry.image_parts(&config, &[geometry.all(); 12]);
        prop_assert_eq!(parts.total() - parts.decisions, geometry.dense_macs());
        let decisions: u64 = (0..12).map(|block| {
            let mut gates = 0;
            if config.gates_sublayers(block) { gates += 2; }
            if config.gates_heads(block).is_some() { gates += 6; }
            if config.gates_tokens(block) { gates += 196; }
            gates * 384
        }).sum();
        prop_assert_eq!(parts.decisions, decisions);
    }

    #[test]
    fn keeping_more_never_costs_less(config in variants(), kept in kept(), block in 0..12_usize) {
        let geometry = deit_small();
        let macs = |kept| geometry.block_parts(&config, block, kept).total();
        let mut more = vec![
            geometry.all(),
            BlockKept { attention: true, ..kept },
            BlockKept { mlp: true, ..kept },
        ];
        if kept.patches < 196 {
            more.push(BlockKept { patches: kept.patches + 1, ..kept });
        }
        if kept.heads < 6 {
            more.push(BlockKept { heads: kept.heads + 1, ..kept });
        }
        for more in more {
            prop_assert!(macs(kept) <= macs(more), "{:?}", more);
        }
    }

    #[test]
    fn with_every_gate_off_only_decisions_cost(config in variants(), kept in kept()) {
        let geometry = deit_small();
        let off = BlockKept { attention: false, mlp: false, ..kept };
        let parts = geometry.block_parts(&config, 5, off);
        prop_assert_eq!(parts.total(), parts.decisions);
    }
}

#[test]
fn an_allocator_counts_once_among_the_decisions() {
    let geometry = nano();
    let elastic = DecisionConfig {
        budget_input: Some(0.5),
        ..DecisionConfig::default()
    };
    let knots = [0.2, 0.5, 1.0].map(|asked| Knot {
        asked,
        share: asked,
    });
    let allocated = DecisionConfig {
        allocator: Some(AllocatorConfig {
            knots: knots.to_vec(),
            curve: vec![Allocation {
                first: 0.5,
                price: 1.0,
                share: 0.5,
            }],
            budget: 0.5,
        }),
        ..elastic
    };
    allocated.validate(geometry.depth).unwrap();
    assert!(allocated.validate(1).is_err());
    let macs = 3 * geometry.embed_dim as u64;
    assert_eq!(
        geometry.floor_macs(&allocated),
        geometry.floor_macs(&elastic) + macs
    );
    let parts = |config| geometry.image_parts(config, &vec![geometry.all(); geometry.depth]);
    let (with, without) = (parts(&allocated), parts(&elastic));
    assert_eq!(with.decisions, without.decisions + macs);
    assert_eq!(with.total(), without.total() + macs);
    let share = |config| geometry.expected_share(config, 0.3);
    let more = share(&allocated) - share(&elastic);
    assert!((more - macs as f64 / geometry.dense_macs() as f64).abs() < 1e-12);
}
