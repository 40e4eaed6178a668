//! The last stage of a run: both models and random policies on the test images.

use std::sync::atomic::Ordering;

use adavit_data::all_indices;
use adavit_decision::BlockUsage;
use adavit_model::{Checkpoint, PreparedTransformer, VisionTransformer};

use crate::error::Result;
use crate::eval::evaluate::{Evaluator, evaluate, evaluate_in_turns};
use crate::eval::evaluation::Evaluation;
use crate::eval::images::Images;
use crate::eval::mode::Mode;
use crate::run::driver::{Flow, Run};
use crate::run::event::Event;
use crate::run::progress::{Stage, TestResults};
use crate::run::snapshot::Snapshot;

/// What the test stage evaluates.
struct TestModels {
    /// The dense and the adaptive model by the fastest path that each has.
    dense: PreparedTransformer,
    sparse: PreparedTransformer,
    /// The adaptive model for the masked path.
    masked: VisionTransformer,
}

/// One evaluation of the test stage.
enum Test {
    /// Both models by their fastest paths.
    Speeds,
    Masked,
    /// Random policies with the adaptive model's three usages in every block.
    Random(Draw),
    /// Random policies with its usage of each block.
    RandomPerBlock(Draw),
}

/// A draw of random decisions.
struct Draw {
    usage: Vec<BlockUsage>,
    draw: u64,
}

impl TestResults {
    /// The first evaluation that is missing.
    fn next(&self, random_policies: usize) -> Option<Test> {
        if !self.in_turns {
            return Some(Test::Speeds);
        }
        let Some(learned) = &self.adaptive else {
            return Some(Test::Masked);
        };
        let usage = &learned.usage;
        if self.random.len() < random_policies {
            Some(Test::Random(Draw {
                usage: usage.in_every_block(usage.per_block.len()),
                draw: self.random.len() as u64,
            }))
        } else if self.random_per_block.len() < random_policies {
            Some(Test::RandomPerBlock(Draw {
                usage: usage.per_block.clone(),
                draw: self.random_per_block.len() as u64,
            }))
        } else {
            None
        }
    }
}

impl Run<'_, '_> {
    /// Evaluates both models and the random policies on the test images, and saves after each.
    pub(crate) fn test_stage(&mut self, loaded: Option<Snapshot>) -> Result<Flow> {
        let mut snapshot = match loaded {
            Some(snapshot) => snapshot,
            None => self.last_snapshot()?,
        };
        let session = self.session;
        let dense = Checkpoint::load(&self.folder.dense())?;
        if self.control.stop.load(Ordering::Relaxed) {
            return Ok(Flow::Stop);
        }
        let adaptive = self.allocated_best(&mut snapshot)?;
        let models = TestModels {
            dense: dense.prepared(&session.device)?,
            sparse: adaptive.prepared(&session.device)?,
            masked: adaptive.model(&session.device)?,
        };
        let test = session.data.test.as_ref();
        let indices = all_indices(test);
        let images = session.images(test, &indices);
        while self.progress.stage == Stage::Test {
            if self.control.stop.load(Ordering::Relaxed) {
                return Ok(Flow::Stop);
            }
            self.test_next(&models, &images)?;
            snapshot.progress = self.stamped();
            snapshot.write(self.folder.path(), self.mark)?;
        }
        Ok(Flow::Continue)
    }

    /// Makes the next evaluation of the test stage; after the last one the run is done.
    fn test_next(&mut self, models: &TestModels, images: &Images) -> Result<()> {
        let random_policies = self.session.random_draws();
        match self.progress.test.next(random_policies) {
            Some(Test::Speeds) => {
                let [dense, sparse] = evaluate_in_turns([
                    Evaluator::prepared(&models.dense, images)?,
                    Evaluator::prepared(&models.sparse, images)?,
                ])?;
                self.report_test("dense", &dense);
                self.report_test("adaptive, sparse path", &sparse);
                let test = &mut self.progress.test;
                (test.dense, test.sparse) = (Some(dense), Some(sparse));
                test.in_turns = true;
            }
            Some(Test::Masked) => {
                let masked = evaluate(&models.masked, images, Mode::Masked)?;
                self.report_test("adaptive, masked path", &masked);
                self.progress.test.adaptive = Some(masked);
            }
            Some(Test::Random(draw)) => {
                let random = self.random_policy(models, images, &draw)?;
                self.report_test("random policy", &random);
                self.progress.test.random.push(random);
            }
            Some(Test::RandomPerBlock(draw)) => {
                let random = self.random_policy(models, images, &draw)?;
                self.report_test("random policy, usage of each block", &random);
                self.progress.test.random_per_block.push(random);
            }
            None => {}
        }
        if self.progress.test.next(random_policies).is_none() {
            self.progress.stage = Stage::Done;
        }
        Ok(())
    }

    fn random_policy(
        &self,
        models: &TestModels,
        images: &Images,
        Draw { usage, draw }: &Draw,
    ) -> Result<Evaluation> {
        let (seed, draw) = (self.session.config.seed, *draw);
        evaluate(&models.masked, images, Mode::Random { usage, seed, draw })
    }

    fn report_test(&mut self, what: &str, evaluation: &Evaluation) {
        (self.control.report)(&Event::Tested { what, evaluation });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_that_did_not_take_turns_are_measured_again() {
        // A snapshot of an older version, whose first evaluation is done.
        let usage = r#"{"tokens": 1, "heads": 1, "blocks": 1, "per_block": []}"#;
        let dense = format!(
            r#"{{"images": 1, "top1": 1, "top5": 1, "macs": 1, "macs_std": 0, "macs_share": 1,
                "usage": {usage}, "images_per_s": 1}}"#
        );
        let text = format!(
            r#"{{"dense": {dense}, "adaptive": null, "random": [], "random_per_block": []}}"#
        );
        let mut results: TestResults = serde_json::from_str(&text).unwrap();
        assert!(matches!(results.next(1), Some(Test::Speeds)));
        results.in_turns = true;
        assert!(matches!(results.next(1), Some(Test::Masked)));
        results.adaptive.clone_from(&results.dense);
        assert!(matches!(results.next(1), Some(Test::Random(_))));
        results.random.extend(results.dense.clone());
        assert!(matches!(results.next(1), Some(Test::RandomPerBlock(_))));
        results.random_per_block.extend(results.dense.clone());
        assert!(results.next(1).is_none());
    }
}
