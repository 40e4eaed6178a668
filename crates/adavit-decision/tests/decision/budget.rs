//! Which usage a budget in MACs asks for.

use adavit_decision::DecisionConfig;

use crate::helpers::{configs, deit_small, nano};

/// Usages for budgets of 0.3, 0.45 and 0.75, in the order of [`configs`]. Trained models have them
/// as targets, so that another value is another training.
const BUDGETS: [f64; 3] = [0.3, 0.45, 0.75];
#[rustfmt::skip]
#[expect(clippy::unreadable_literal, reason = "as the computer prints them")]
const NANO: [[f64; 3]; 8] = [
    [0.4620406307134203, 0.6095407944467093, 0.8414058785600451],
    [0.20064798687204166, 0.4108597765770374, 0.757732332803652],
    [0.5365285236447528, 0.6746713498785317, 0.8738786411362036],
    [0.3273110382457911, 0.5354256013060126, 0.8245935083621021],
    [0.4804217680652084, 0.6279045904543132, 0.8519579411286342],
    [0.2084019457411626, 0.43017550558171436, 0.7776839131720412],
    [0.5691541571590404, 0.7017489187279005, 0.8856536998352662],
    [0.395787467600891, 0.5959432430780824, 0.8481501095692972],
];
#[rustfmt::skip]
#[expect(clippy::unreadable_literal, reason = "as the computer prints them")]
const DEIT_SMALL: [[f64; 3]; 8] = [
    [0.5289574329966267, 0.6594880480963525, 0.8626671520626641],
    [0.34355897723688933, 0.5167104650980261, 0.8023840232676775],
    [0.6085507260449623, 0.7252135567082525, 0.8934626300420792],
    [0.4718825639908717, 0.6319268454968596, 0.8596700143013423],
    [0.552367455038824, 0.680960044486631, 0.8741175543525594],
    [0.3606906695485158, 0.542231037574483, 0.8224739034013719],
    [0.6438315633516511, 0.7509412244645362, 0.9036989920699183],
    [0.5494603968433396, 0.6850290094116889, 0.8781141099320224],
];

#[test]
fn usage_for_a_budget_gives_the_budget_back() {
    let geometry = deit_small();
    let config = DecisionConfig::default();
    for budget in [0.2, 0.5, 0.8] {
        let usage = geometry.usage_for_budget(&config, budget);
        assert!((geometry.expected_share(&config, usage) - budget).abs() < 1e-9);
    }
    assert!(geometry.usage_for_budget(&config, 1e-9) < 1e-9);
}

#[test]
fn usages_for_a_budget_are_those_of_the_published_runs() {
    for (geometry, usages, tolerance) in [
        // Channels are a power of two: no order of the factors rounds differently.
        (nano(), NANO, 0.0),
        (deit_small(), DEIT_SMALL, 1e-15),
    ] {
        for (config, usages) in configs().zip(usages) {
            for (budget, expected) in BUDGETS.into_iter().zip(usages) {
                let found = geometry.usage_for_budget(&config, budget);
                assert!(
                    (found - expected).abs() <= tolerance,
                    "{config:?} {found} {expected}"
                );
            }
        }
    }
}
