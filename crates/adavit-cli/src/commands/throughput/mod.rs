//! `adavit throughput`: how fast a model runs on this machine.

mod profile;
mod text;

use adavit_experiment::measure::{
    AdaptiveWorkload, Keep, Realised, Throughput, Workload, peak_rss_bytes,
};
use adavit_model::Checkpoint;
use anyhow::Result;
use serde_json::{Value, json};

use self::profile::{Row, profile};
use crate::exit::Exit;
use crate::machine::{Machine, MachineArgs};
use crate::output::{OutputArgs, print, print_json};
use crate::source::ModelArgs;
use crate::values::{StrategyArg, batch_size, keep};

/// Iterations that a profile adds up.
const PROFILED: u32 = 10;

#[derive(Debug, clap::Args)]
pub(crate) struct ThroughputArgs {
    #[command(flatten)]
    model: ModelArgs,

    /// Images per forward or step
    #[arg(long, value_name = "N", default_value_t = 32, alias = "batch", value_parser = batch_size)]
    batch_size: usize,

    /// Measure training steps first: cross entropy and AdamW
    #[arg(long)]
    train: bool,

    /// Compare the dense model with the masked and the sparse path, which keep these shares:
    /// tokens=T,heads=H,blocks=B, each in (0, 1], those left out are 1 [default: no comparison]
    #[arg(long, value_name = "SHARES", value_parser = keep)]
    usage: Option<Keep>,

    /// How the sparse path of --usage skips heads; logits are the same
    #[arg(long, value_enum, default_value = "auto", requires = "usage")]
    strategy: StrategyArg,

    /// Also report milliseconds and GFLOP/s of each operation
    #[arg(long)]
    profile: bool,

    /// Duration of the measured rounds
    #[arg(
        long,
        value_name = "S",
        default_value_t = 5.0,
        allow_negative_numbers = true
    )]
    seconds: f64,

    /// Seed of untrained weights, of images and of kept parts
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,

    #[command(flatten)]
    machine: MachineArgs,

    #[command(flatten)]
    output: OutputArgs,
}

/// Everything that was measured.
struct Measurements {
    machine: Machine,
    preset: String,
    train: Option<Measured>,
    dense: Measured,
    comparison: Option<PathComparison>,
}

/// One workload.
struct Measured {
    speed: Throughput,
    macs: u64,
    profile: Option<Vec<Row>>,
}

/// The dense model, the masked and the sparse path in turn, and the profile of the latter.
struct PathComparison {
    realised: Realised,
    profile: Option<Vec<Row>>,
}

pub(crate) fn run(args: &ThroughputArgs) -> Result<Exit> {
    let machine = args.machine.open()?;
    let checkpoint = args.model.open(args.seed)?;
    // Training comes first: its memory is measured in a fresh process.
    let train = args
        .train
        .then(|| {
            let work =
                Workload::training_of(&checkpoint, args.batch_size, args.seed, &machine.device)?;
            measure(args, work)
        })
        .transpose()?;
    let work = Workload::inference_of(&checkpoint, args.batch_size, args.seed, &machine.device)?;
    let measured = Measurements {
        train,
        dense: measure(args, work)?,
        preset: checkpoint.config.preset.clone(),
        comparison: args
            .usage
            .map(|keep| compare(args, checkpoint, keep, &machine))
            .transpose()?,
        machine,
    };
    if args.output.json {
        print_json(&measured.value(args))?;
    } else {
        print(&measured.text(args))?;
    }
    Ok(Exit::Done)
}

fn measure(args: &ThroughputArgs, mut work: Workload) -> Result<Measured> {
    Ok(Measured {
        speed: work.measure(args.seconds)?,
        profile: profile_of(args, &mut work)?,
        macs: work.macs(),
    })
}

fn compare(
    args: &ThroughputArgs,
    checkpoint: Checkpoint,
    keep: Keep,
    machine: &Machine,
) -> Result<PathComparison> {
    let adaptive = AdaptiveWorkload::of(checkpoint, keep, args.seed, &machine.device)?
        .with_strategy(args.strategy.into());
    Ok(PathComparison {
        realised: adaptive.measure(args.batch_size, args.seconds)?,
        profile: profile_of(args, &mut adaptive.sparse(args.batch_size)?)?,
    })
}

/// Where the time of a workload goes, if that was asked for.
fn profile_of(args: &ThroughputArgs, work: &mut Workload) -> Result<Option<Vec<Row>>> {
    args.profile
        .then(|| profile(PROFILED, || Ok(work.run()?)))
        .transpose()
}

impl Measurements {
    fn value(&self, args: &ThroughputArgs) -> Value {
        let speed = |measured: &Measured| {
            json!({
                "images_per_s": measured.speed.images_per_s,
                "macs": measured.macs,
                "share_of_peak": measured.speed.share_of_peak(),
                "profile": measured.profile,
            })
        };
        let (train, dense) = (self.train.as_ref(), &self.dense);
        let mut value = json!({
            "preset": self.preset,
            "batch": args.batch_size,
            "threads": self.machine.threads,
            "simd": self.machine.simd,
            "device": self.machine.device_name,
            "dense": speed(dense),
            "train": train.map(speed),
            "peak_gflops": dense.speed.peak_flops / 1e9,
            "step_rss_bytes": train.map(|train| train.speed.grown_bytes),
            "peak_rss_bytes": peak_rss_bytes(),
        });
        if let Some(path) = &args.model.checkpoint {
            value["checkpoint"] = json!(path);
        }
        if let Some(comparison) = &self.comparison {
            comparison.add_to(&mut value);
        }
        value
    }
}

impl PathComparison {
    /// Adds what was measured in turn. `dense` is of the same rounds then.
    fn add_to(&self, value: &mut Value) {
        let realised = &self.realised;
        value["dense"]["images_per_s"] = json!(realised.dense_images_per_s);
        value["masked"] = json!({"images_per_s": realised.masked_images_per_s});
        value["sparse"] = json!({
            "images_per_s": realised.sparse_images_per_s,
            "macs": realised.macs,
            "macs_executed": realised.macs_executed,
            "profile": self.profile,
        });
        value["realised"] = json!(realised.ratio);
        value["latency_ms"] = json!({"p50": realised.latency_p50, "p99": realised.latency_p99});
    }
}
