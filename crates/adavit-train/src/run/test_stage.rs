//! The last stage of a run: both models and random policies on the test images.

use std::sync::atomic::Ordering;

use adavit_decision::BlockUsage;
use adavit_model::{Checkpoint, PreparedTransformer, VisionTransformer};

use crate::error::{Error, Result};
use crate::eval::evaluate::{Evaluation, Images, Mode, evaluate, evaluate_sparse};
use crate::run::driver::{Flow, Run};
use crate::run::event::Event;
use crate::run::progress::Stage;
use crate::run::snapshot::Snapshot;

/// What the test stage evaluates.
struct TestModels {
    dense: VisionTransformer,
    adaptive: VisionTransformer,
    /// The adaptive model once more, for the sparse path.
    sparse: PreparedTransformer,
}

impl Run<'_, '_> {
    /// Both models and the random policies on the test images, saved after each.
    pub(crate) fn test_stage(&mut self, loaded: Option<Snapshot>) -> Result<Flow> {
        let mut snapshot = match loaded {
            Some(snapshot) => snapshot,
            None => self.last_snapshot()?,
        };
        let session = self.session;
        let dense = Checkpoint::load(&self.folder.dense())?.model(&session.device)?;
        let adaptive = Checkpoint::load(&self.folder.best())?;
        let models = TestModels {
            dense,
            adaptive: adaptive.model(&session.device)?,
            sparse: adaptive.prepared(&session.device)?,
        };
        let indices = session.data.test.indices();
        let images = session.images(&session.data.test, &indices);
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

    /// The next evaluation of the test stage; after the last one the run is done.
    fn test_next(&mut self, models: &TestModels, images: &Images) -> Result<()> {
        let TestModels {
            dense,
            adaptive,
            sparse,
        } = models;
        let config = &self.session.config;
        let draws = self.session.random_draws();
        let test = &mut self.progress.test;
        let random = |draws: &mut Vec<Evaluation>, usage: &[BlockUsage]| {
            let mode = Mode::Random {
                usage,
                seed: config.seed,
                draw: draws.len() as u64,
            };
            let evaluation = evaluate(adaptive, images, mode)?;
            draws.push(evaluation.clone());
            Ok::<_, Error>(evaluation)
        };
        let (what, evaluation) = if test.dense.is_none() {
            let evaluation = evaluate(dense, images, Mode::Dense)?;
            test.dense = Some(evaluation.clone());
            ("dense", evaluation)
        } else if test.adaptive.is_some() && test.sparse.is_none() {
            let evaluation = evaluate_sparse(sparse, images, &mut |_| Ok(()))?;
            test.sparse = Some(evaluation.clone());
            ("adaptive, sparse path", evaluation)
        } else if let Some(learned) = &test.adaptive {
            if test.random.len() < draws {
                let usage = learned.usage.in_every_block(learned.usage.per_block.len());
                ("random policy", random(&mut test.random, &usage)?)
            } else {
                let usage = &learned.usage.per_block;
                let evaluation = random(&mut test.random_per_block, usage)?;
                ("random policy, usage of each block", evaluation)
            }
        } else {
            let evaluation = evaluate(adaptive, images, Mode::Masked)?;
            test.adaptive = Some(evaluation.clone());
            ("adaptive, masked path", evaluation)
        };
        if test.random_per_block.len() >= draws {
            self.progress.stage = Stage::Done;
        }
        (self.control.report)(&Event::Tested {
            what,
            evaluation: &evaluation,
        });
        Ok(())
    }
}
