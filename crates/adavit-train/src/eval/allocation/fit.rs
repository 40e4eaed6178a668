//! The fit: what the model shows at several budgets, the regression, and the curve of prices.

use adavit_decision::{Allocation, AllocatorConfig, Budgets, Knot};
use adavit_model::{BudgetCurve, Checkpoint, CurvePoint, PreparedTransformer, is_allocator_tensor};
use candle_core::{Device, Tensor};

use crate::error::{Error, Result};
use crate::eval::allocation::price::{
    Shown, predictions, price_for, spent, targets, tokens_at, uniform_top1,
};
use crate::eval::allocation::record::Record;
use crate::eval::allocation::report::{AllocatorReport, KnotReport, PointReport};
use crate::eval::allocation::ridge::{FOLDS, Fit, Map, Pairs, explained, fit};
use crate::eval::images::Images;

/// The widest gap between two points of the curve, as a part of the higher one, that is not halved.
const WIDEST_GAP: f64 = 0.1;
/// How many gaps are halved at most.
const MOST_HALVED: usize = 16;

/// What became of a fit.
#[derive(Debug, Clone, PartialEq)]
pub enum Allocated {
    /// The checkpoint has an allocator.
    Fitted(AllocatorReport),
    /// The checkpoint has none, for this reason.
    Not(String),
}

/// The regression of losses.
struct LossFit {
    /// To the losses at all knots.
    map: Map,
    /// The same without the images of each fold.
    without: Vec<Map>,
    /// The share of each loss's variance that these predict.
    r2: Vec<f64>,
    /// To the loss at the first knot, and the changes from each knot to the next.
    of_changes: Fit,
}

/// Fits an allocator on images that the model was not trained on, in place of one that it may have,
/// and measures its budget curve again. A call that asks for no budget then spends `budget` of the
/// dense model's MACs on average; if it is not given, what it spent before.
///
/// # Errors
/// If the model is not elastic, an image cannot be read, or a logit is not finite.
pub fn fit_allocator(
    checkpoint: &mut Checkpoint,
    images: &Images,
    budget: Option<f64>,
) -> Result<Allocated> {
    let (curve, before) = asked(checkpoint)?;
    remove(checkpoint);
    let model = checkpoint.prepared(images.device)?;
    let mut shown: Vec<Shown> = Vec::new();
    let mut points = Vec::new();
    for point in &curve.points {
        let asked = point.asked;
        let record = Record::of(&model, images, Budgets::Same(asked))?;
        let share = record.share;
        points.push(CurvePoint { asked, share });
        // A budget that spends no more than a smaller one is none to choose.
        if shown.last().is_none_or(|last| share > last.knot.share) {
            let knot = Knot { asked, share };
            shown.push(Shown { knot, record });
        }
    }
    checkpoint.config.budget_curve = Some(BudgetCurve { points });
    if shown.len() < 2 {
        return Ok(Allocated::Not(
            "the model spends the same whatever it is asked for, so there is nothing to allocate"
                .into(),
        ));
    }
    if images.indices.len() < 2 * FOLDS {
        let (least, found) = (2 * FOLDS, images.indices.len());
        return Ok(Allocated::Not(format!(
            "an allocator needs at least {least} held-out images, found {found}"
        )));
    }
    let fit = regress(&shown)?;
    install(checkpoint, &shown, &fit.map, budget.unwrap_or(before))?;
    let points = measure(checkpoint, images, &shown, &fit)?;
    let knots = shown.iter().enumerate();
    let knots = knots.map(|(k, shown)| KnotReport {
        asked: shown.knot.asked,
        share: shown.knot.share,
        top1: shown.record.top1(),
        r2: fit.r2[k],
        change_r2: fit.of_changes.r2[k],
        penalty: fit.of_changes.penalties[k],
    });
    Ok(Allocated::Fitted(AllocatorReport {
        images: images.indices.len(),
        knots: knots.collect(),
        points,
    }))
}

/// The budgets to measure, and the mean share of a call that asks for none.
fn asked(checkpoint: &Checkpoint) -> Result<(BudgetCurve, f64)> {
    let config = &checkpoint.config;
    let decisions = config.decisions.as_ref();
    let own = decisions.and_then(|decisions| decisions.budget_input);
    let (Some(own), Some(curve)) = (own, &config.budget_curve) else {
        return Err(Error::Mismatch(
            "allocator: expected an elastic model with the curve that its training measured, found \
             another one; train one with the table `elastic`"
                .into(),
        ));
    };
    let allocator = decisions.and_then(|decisions| decisions.allocator.as_ref());
    let before = allocator.map_or_else(|| curve.share_of(own), |own| own.budget);
    Ok((curve.clone(), before.min(1.0)))
}

/// Removes the allocator, if there is one.
fn remove(checkpoint: &mut Checkpoint) {
    checkpoint
        .tensors
        .retain(|name, _| !is_allocator_tensor(name));
    if let Some(decisions) = &mut checkpoint.config.decisions {
        decisions.allocator = None;
    }
}

/// Predicts the losses at all knots from the class tokens at each.
///
/// The choice depends on how the loss changes from knot to knot, which is harder to predict than the
/// loss. So the outputs are the loss at the first knot and the changes, each with a penalty of its
/// own; the loss at a knot is the sum of those before.
fn regress(shown: &[Shown]) -> Result<LossFit> {
    let features: Vec<&[f32]> = shown
        .iter()
        .map(|shown| shown.record.tokens.as_slice())
        .collect();
    let images = shown[0].record.losses.len();
    let losses = |image: usize| shown.iter().map(move |shown| shown.record.losses[image]);
    let all: Vec<f64> = (0..images).flat_map(losses).collect();
    let changes = all.chunks_exact(shown.len()).flat_map(|losses| {
        let before = [0.0].into_iter().chain(losses.iter().copied());
        losses
            .iter()
            .zip(before)
            .map(|(loss, before)| loss - before)
    });
    let changes: Vec<f64> = changes.collect();
    let pairs = |outputs| Pairs {
        features: &features,
        outputs,
        n_out: shown.len(),
    };
    let of_changes = fit(&pairs(&changes))?;
    let without = of_changes.without.iter().cloned();
    let without: Vec<Map> = without.map(Map::summed).collect();
    Ok(LossFit {
        map: of_changes.map.clone().summed(),
        r2: explained(&pairs(&all), &without),
        without,
        of_changes,
    })
}

/// Gives the checkpoint an allocator, whose curve is still to be measured.
fn install(checkpoint: &mut Checkpoint, shown: &[Shown], map: &Map, budget: f64) -> Result<()> {
    let knots: Vec<Knot> = shown.iter().map(|shown| shown.knot).collect();
    let last = knots[knots.len() - 1];
    let config = AllocatorConfig {
        curve: vec![Allocation {
            first: last.asked,
            price: 0.0,
            share: last.share,
        }],
        knots,
        budget,
    };
    let tensor = |values: &[f64], shape: &[usize]| {
        let values: Vec<f32> = values.iter().map(|x| *x as f32).collect();
        Tensor::from_vec(values, shape, &Device::Cpu)
    };
    let (k, c) = (config.knots.len(), checkpoint.config.embed_dim);
    for (name, tensor) in [
        ("allocator.weight", tensor(&map.weight, &[k, c])?),
        ("allocator.bias", tensor(&map.bias, &[k])?),
    ] {
        checkpoint.tensors.insert(name.into(), tensor);
    }
    if let Some(decisions) = &mut checkpoint.config.decisions {
        decisions.allocator = Some(config);
    }
    Ok(())
}

/// What the allocator gives, measured.
#[derive(Clone, Copy)]
struct Measured {
    first: f64,
    point: PointReport,
}

impl Measured {
    fn asked(&self) -> [f64; 2] {
        [self.first, self.point.price]
    }
}

/// Measures what prices give, and puts that into the allocator's curve.
///
/// At each knot the price is that at which the recorded images spend as much as at the knot. Between
/// these, where a call interpolates, the widest gaps are halved.
fn measure(
    checkpoint: &mut Checkpoint,
    images: &Images,
    shown: &[Shown],
    fit: &LossFit,
) -> Result<Vec<PointReport>> {
    let model = checkpoint.prepared(images.device)?;
    let at = |[first, price]: [f64; 2]| measure_at(&model, images, shown, fit, [first, price]);
    let mut path: Vec<Measured> = Vec::new();
    for (target, shown_at) in targets(shown).into_iter().zip(shown) {
        let predicted = predictions(&shown_at.record.tokens, shown, |_| &fit.map);
        let price = price_for(shown, &predicted, target);
        path.push(at([shown_at.knot.asked, price])?);
    }
    for _ in 0..MOST_HALVED {
        let gap = |index: &usize| {
            let [a, b] = [path[index - 1].point.share, path[*index].point.share];
            (b - a).abs() / b.max(a)
        };
        let widest = (1..path.len()).max_by(|a, b| gap(a).total_cmp(&gap(b)));
        let Some(index) = widest.filter(|index| gap(index) > WIDEST_GAP) else {
            break;
        };
        let [low, high] = [path[index - 1].asked(), path[index].asked()];
        let middle = [0, 1].map(|part| f64::midpoint(low[part], high[part]));
        path.insert(index, at(middle)?);
    }
    rising(&mut path);
    let decisions = checkpoint.config.decisions.as_mut();
    if let Some(allocator) = decisions.and_then(|decisions| decisions.allocator.as_mut()) {
        allocator.curve = curve(&path);
        if let Budgets::Allocated { first, price } = allocator.asked_for(allocator.budget) {
            path.push(at([first, price])?);
            path.sort_by(|a, b| a.point.share.total_cmp(&b.point.share));
            rising(&mut path);
            allocator.curve = curve(&path);
        }
    }
    Ok(path.into_iter().map(|measured| measured.point).collect())
}

/// Leaves out what spends no more than a point before.
fn rising(path: &mut Vec<Measured>) {
    let mut most = f64::NEG_INFINITY;
    path.retain(|measured| {
        let share = measured.point.share;
        let rises = share > most;
        most = most.max(share);
        rises
    });
}

fn curve(path: &[Measured]) -> Vec<Allocation> {
    let points = path.iter().map(|measured| Allocation {
        first: measured.first,
        price: measured.point.price,
        share: measured.point.share,
    });
    points.collect()
}

fn measure_at(
    model: &PreparedTransformer,
    images: &Images,
    shown: &[Shown],
    fit: &LossFit,
    [first, price]: [f64; 2],
) -> Result<Measured> {
    let record = Record::of(model, images, Budgets::Allocated { first, price })?;
    let share = record.share;
    let tokens = tokens_at(shown, first);
    let unseen = predictions(tokens, shown, |image| &fit.without[image % FOLDS]);
    let right = |record: &Record, image: usize| f64::from(u8::from(record.right[image]));
    Ok(Measured {
        first,
        point: PointReport {
            share,
            price,
            top1: record.top1(),
            unseen_top1: spent(shown, &unseen, price, right),
            uniform_top1: uniform_top1(shown, share),
        },
    })
}
