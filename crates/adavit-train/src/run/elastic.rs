//! An elastic model in a run: the budgets of its images, and what it spends of those asked for.

use adavit_data::Batch;
use adavit_decision::Allowance;
use adavit_model::{BudgetCurve, Checkpoint, CurvePoint, ModelConfig};

use crate::config::elastic::{BudgetKey, Elastic};
use crate::config::train_config::TrainConfig;
use crate::error::Result;
use crate::eval::evaluate::Evaluator;
use crate::eval::evaluation::Evaluation;
use crate::eval::images::Images;

/// The budgets that an epoch's model is measured at, besides the smallest: `best` has the highest
/// mean accuracy over these.
const CHOSEN_BY: [f64; 4] = [0.2857, 0.4545, 0.7, 1.0];
/// More budgets, for the curve of a model that may be `best`.
const BETWEEN: [f64; 4] = [0.2, 0.36, 0.57, 0.85];

/// The smallest budget that is trained and measured.
fn smallest(elastic: &Elastic, model: &ModelConfig) -> f64 {
    elastic.smallest.unwrap_or_else(|| model.smallest_budget())
}

/// Returns the budget of each image of a batch, keyed by (seed, epoch, sample); none if the model is
/// trained for one.
pub(super) fn drawn(
    config: &TrainConfig,
    model: &ModelConfig,
    epoch: u64,
    batch: &Batch,
) -> Option<Vec<f64>> {
    let elastic = config.elastic.as_ref()?;
    let smallest = smallest(elastic, model);
    let draw = |sample: &u64| {
        let key = BudgetKey {
            seed: config.seed,
            epoch,
            sample: *sample,
        };
        elastic.draw(smallest, key)
    };
    Some(batch.samples.iter().map(draw).collect())
}

/// Measures an elastic model on held-out images at several budgets. Accuracy, MACs and usage of the
/// evaluation are means over the budgets.
///
/// A model that may be `best` also gets its curve, and the budget of a call that asks for none.
pub(super) fn evaluate_budgets(
    config: &TrainConfig,
    elastic: &Elastic,
    checkpoint: &mut Checkpoint,
    images: &Images,
    eligible: bool,
) -> Result<Evaluation> {
    let smallest = smallest(elastic, &checkpoint.config);
    let model = checkpoint.prepared(images.device)?;
    let measure = |budget: f64| {
        Evaluator::prepared(&model, images)?
            .within(Allowance::of_budget(budget))?
            .finish()
    };
    let above = |budgets: &[f64]| -> Vec<f64> {
        let budgets = budgets.iter().copied();
        budgets.filter(|budget| *budget > smallest).collect()
    };
    let (mut points, mut chosen_by) = (Vec::new(), Vec::new());
    for budget in [vec![smallest], above(&CHOSEN_BY)].concat() {
        let evaluation = measure(budget)?;
        points.push(CurvePoint {
            asked: budget,
            share: evaluation.macs_share,
        });
        chosen_by.push(evaluation);
    }
    if eligible {
        for budget in above(&BETWEEN) {
            points.push(CurvePoint {
                asked: budget,
                share: measure(budget)?.macs_share,
            });
        }
        points.sort_by(|a, b| a.asked.total_cmp(&b.asked));
        let curve = BudgetCurve { points };
        if let Some(decisions) = &mut checkpoint.config.decisions {
            decisions.budget_input = Some(curve.asked_for(config.budget));
        }
        checkpoint.config.budget_curve = Some(curve);
    }
    Ok(mean(&chosen_by))
}

/// The first evaluation with the means of all.
fn mean(all: &[Evaluation]) -> Evaluation {
    let of = |value: fn(&Evaluation) -> f64| all.iter().map(value).sum::<f64>() / all.len() as f64;
    let mut mean = all[0].clone();
    mean.top1 = of(|e| e.top1);
    mean.top5 = of(|e| e.top5);
    mean.macs = of(|e| e.macs);
    mean.macs_share = of(|e| e.macs_share);
    mean.usage.tokens = of(|e| e.usage.tokens);
    mean.usage.heads = of(|e| e.usage.heads);
    mean.usage.blocks = of(|e| e.usage.blocks);
    mean
}
