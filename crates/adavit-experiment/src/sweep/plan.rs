//! The plan of a sweep: which models there are, with which settings and from which checkpoints.

use std::path::PathBuf;

use adavit_model::TokenReduction;
use adavit_train::{Method, TrainConfig};

use crate::error::Result;
use crate::sweep::config::Rival;
use crate::sweep::driver::Sweep;
use crate::sweep::job::Job;

impl Sweep<'_, '_> {
    /// Everything to measure: first what the others need, then by importance.
    pub(super) fn all_jobs(&mut self) -> Vec<Job> {
        let config = self.config;
        let mut jobs = Vec::new();
        for (index, seed) in config.seeds.iter().copied().enumerate() {
            jobs.push(Job::Dense { seed });
            let budgets = config.budgets.iter();
            jobs.extend(budgets.map(|&budget| Job::Adaptive { budget, seed }));
            if index == 0 {
                jobs.extend(self.jobs_of_first_seed());
            }
        }
        jobs
    }

    fn jobs_of_first_seed(&mut self) -> Vec<Job> {
        let config = self.config;
        let calibrated = config.calibrated.iter();
        let mut jobs: Vec<Job> = calibrated
            .map(|&budget| Job::Calibrated { budget })
            .collect();
        let mut possible = Vec::new();
        for (&budget, &rival) in config
            .budgets
            .iter()
            .flat_map(|budget| config.rivals.iter().map(move |rival| (budget, rival)))
        {
            match self.reduction(rival, budget) {
                Ok(_) => possible.push((budget, rival)),
                Err(error) => self.note(&format!("{} is skipped: {error}", rival.name())),
            }
        }
        let rivals = |tuned: bool| {
            let possible = possible.clone().into_iter();
            possible.map(move |(budget, rival)| Job::Rival {
                rival,
                tuned,
                budget,
            })
        };
        jobs.extend(rivals(false));
        jobs.extend((0..config.smaller_models.len()).map(Job::Smaller));
        if config.fine_tune_rivals {
            jobs.extend(rivals(true));
        }
        jobs.extend((0..config.variants.len()).map(Job::Variant));
        jobs
    }

    /// The token reduction of a rival that reduces tokens.
    fn reduction(&self, rival: Rival, budget: f64) -> Result<Option<TokenReduction>> {
        let Some(method) = rival.reduction() else {
            return Ok(None);
        };
        let model = self.recipe.dense_model()?;
        let blocks = &self.config.evit_blocks;
        let found = TokenReduction::for_budget(&model, method, budget, blocks)?;
        Ok(Some(found))
    }

    /// The recipe with a seed.
    pub(super) fn seeded(&self, seed: u64) -> TrainConfig {
        TrainConfig {
            seed,
            ..self.recipe.clone()
        }
    }

    /// The settings of a model's training, or of its measurement if it is not trained.
    pub(super) fn settings(&mut self, job: Job) -> Result<TrainConfig> {
        let config = self.config;
        let first = config.seeds[0];
        let settings = match job {
            Job::Dense { seed } => self.seeded(seed),
            Job::Smaller(index) => config.smaller(self.recipe, &config.smaller_models[index]),
            Job::Adaptive { budget, seed } => self.adapting(self.seeded(seed), budget),
            Job::Variant(index) => {
                let variant = &config.variants[index];
                let settings = config.variant(self.recipe, variant)?;
                self.adapting(settings, variant.budget)
            }
            Job::Calibrated { budget } => self.adapting(self.seeded(first), budget),
            Job::Rival { rival, budget, .. } => {
                let mut settings = self.adapting(self.seeded(first), budget);
                settings.method = match self.reduction(rival, budget)? {
                    Some(reduction) => Method::Reduced { reduction },
                    None => Method::Random {
                        usage: self.usage(job, &settings)?,
                    },
                };
                settings
            }
        };
        Ok(settings)
    }

    /// The checkpoint of a model.
    pub(super) fn checkpoint(&self, job: Job) -> PathBuf {
        let first = self.config.seeds[0];
        match job {
            Job::Dense { .. } | Job::Smaller(_) => self.run(&job.name(self.config)).join("dense"),
            Job::Rival {
                rival,
                tuned: false,
                budget,
            } => match rival.reduction() {
                Some(_) => self.dense(first),
                None => self.adaptive(budget, first),
            },
            _ => self.run(&job.name(self.config)).join("best"),
        }
    }

    /// The dense model of a seed.
    pub(super) fn dense(&self, seed: u64) -> PathBuf {
        self.checkpoint(Job::Dense { seed })
    }

    /// The adaptive model of a budget and seed.
    pub(super) fn adaptive(&self, budget: f64, seed: u64) -> PathBuf {
        self.checkpoint(Job::Adaptive { budget, seed })
    }

    /// Settings that start from the dense model of their seed.
    fn adapting(&self, settings: TrainConfig, budget: f64) -> TrainConfig {
        TrainConfig {
            dense_checkpoint: Some(self.dense(settings.seed)),
            budget,
            ..settings
        }
    }
}
