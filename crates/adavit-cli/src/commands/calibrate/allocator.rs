//! `adavit calibrate --allocator`: fits the allocator of an elastic checkpoint.

use adavit_data::all_indices;
use adavit_decision::Allowance;
use adavit_model::{Checkpoint, ModelConfig};
use adavit_train::{Allocated, AllocatorReport, Evaluation, Evaluator, Images, fit_allocator};
use anyhow::Result;
use serde_json::{Value, json};

use crate::commands::calibrate::{CalibrateArgs, Ready, exit, line, measured};
use crate::exit::{Exit, bad_input};
use crate::output::{message, print, print_json};

/// An allocator against one budget for all, on images of neither training nor fit.
struct Compared {
    /// The mean share of a call that asks for nothing.
    budget: f64,
    allocated: Evaluation,
    uniform: Evaluation,
}

impl Ready<'_> {
    /// Fits the allocator, and compares it on the test images.
    pub(super) fn allocate(mut self, args: &CalibrateArgs, budget: Option<f64>) -> Result<Exit> {
        if let Some(budget) = budget {
            self.checkpoint.config.input_for_budget(budget)?;
        }
        let report = match fit_allocator(&mut self.checkpoint, &self.images, budget)? {
            Allocated::Fitted(report) => report,
            Allocated::Not(reason) => return Err(bad_input(format!("allocator: {reason}"))),
        };
        self.checkpoint.save(&self.target)?;
        let all = all_indices(self.test);
        let images = Images {
            dataset: self.test,
            indices: &all,
            ..self.images
        };
        let compared = Compared::of(&self.checkpoint, &images)?;
        if args.output.json {
            print_json(&self.value(&report, &compared))?;
        } else {
            message(&report.text(compared.budget));
            print(&format!(
                "{}\nallocator written to {}",
                compared.text(),
                self.target.display()
            ))?;
        }
        Ok(exit(self.left_out > 0))
    }

    fn value(&self, report: &AllocatorReport, compared: &Compared) -> Value {
        json!({
            "checkpoint": self.target,
            "budget": compared.budget,
            "allocator": report,
            "test": measured(&compared.allocated),
            "test_uniform": measured(&compared.uniform),
        })
    }
}

impl Compared {
    fn of(checkpoint: &Checkpoint, images: &Images) -> Result<Self> {
        let config = &checkpoint.config;
        let budget = budget_of(config);
        let model = checkpoint.prepared(images.device)?;
        let evaluate = |allowance: Allowance| -> Result<Evaluation> {
            let evaluator = Evaluator::prepared(&model, images)?;
            Ok(evaluator.within(allowance)?.finish()?)
        };
        let curve = config.budget_curve.as_ref();
        let input = curve.map_or(budget, |curve| curve.asked_for(budget));
        Ok(Self {
            budget,
            allocated: evaluate(Allowance::default())?,
            uniform: evaluate(Allowance::of_budget(input))?,
        })
    }

    fn text(&self) -> String {
        format!(
            "{}\n{}",
            line("test, allocated ", &self.allocated),
            line("test, uniform   ", &self.uniform)
        )
    }
}

fn budget_of(config: &ModelConfig) -> f64 {
    let decisions = config.decisions.as_ref();
    let allocator = decisions.and_then(|decisions| decisions.allocator.as_ref());
    allocator.map_or(1.0, |allocator| allocator.budget)
}
