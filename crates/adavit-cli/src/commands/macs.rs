//! `adavit macs`: what a model costs.

use std::path::PathBuf;

use adavit_decision::MacsParts;
use adavit_model::{ModelConfig, paper_cost_table, write_tensors};
use anyhow::Result;
use serde_json::{Value, json};

use crate::exit::{Exit, bad_input};
use crate::output::{OutputArgs, macs, print, print_json};
use crate::source::ModelArgs;
use crate::values::{Accounting, Rounding};

#[derive(Debug, clap::Args)]
pub(crate) struct MacsArgs {
    #[command(flatten)]
    model: ModelArgs,

    /// How multiply-adds are counted
    #[arg(long, value_enum, default_value = "exact")]
    accounting: Accounting,

    /// Also write the cost of a block for every use of it, as in the published tables: tensor gmacs by
    /// heads kept, tokens kept, attention on, MLP on; requires --accounting paper
    #[arg(long, value_name = "OUT")]
    table: Option<PathBuf>,

    /// How the paper's accounting counts tokens
    #[arg(long, value_enum, default_value = "published")]
    rounding: Rounding,

    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) fn run(args: &MacsArgs) -> Result<Exit> {
    match args.accounting {
        Accounting::Exact if args.table.is_some() => {
            return Err(bad_input(
                "--table: expected the paper's accounting; add --accounting paper",
            ));
        }
        Accounting::Exact => exact(args)?,
        Accounting::Paper => paper(args)?,
    }
    Ok(Exit::Done)
}

fn exact(args: &MacsArgs) -> Result<()> {
    let config = args.model.config()?;
    let geometry = config.geometry();
    let dense = geometry.dense_parts();
    let blocks = vec![geometry.all(); geometry.depth];
    let kept = geometry.image_parts(&config.decisions.clone().unwrap_or_default(), &blocks);
    if args.output.json {
        let parts = |parts: &MacsParts| json!({"macs": parts.total(), "parts": parts});
        let mut value = described(args, &config, "exact");
        value["dense"] = parts(&dense);
        value["adaptive_all_kept"] = parts(&kept);
        return print_json(&value);
    }
    let mut lines = vec![
        format!(
            "{}, exact MACs per image (1 MAC = 2 FLOPs)",
            name(args, &config)
        ),
        format!("{:<14}{:>18}{:>26}", "part", "dense", "adaptive, all kept"),
    ];
    for ((name, dense), (_, kept)) in dense.named().into_iter().zip(kept.named()) {
        lines.push(format!("{name:<14}{dense:>18}{kept:>26}"));
    }
    lines.push(format!(
        "{:<14}{:>18}{:>26}",
        "total",
        dense.total(),
        kept.total()
    ));
    print(&lines.join("\n"))
}

fn paper(args: &MacsArgs) -> Result<()> {
    let config = args.model.config()?;
    let base = config.paper_base_macs()?;
    let geometry = config.geometry();
    if geometry != ModelConfig::preset(&config.preset)?.geometry() {
        return Err(bad_input(format!(
            "--accounting paper: expected the sizes of {}, found others; use --accounting exact",
            config.preset
        )));
    }
    let rounding = args.rounding.into();
    let block = geometry.paper_block_macs(geometry.all(), rounding);
    let total = base + block * geometry.depth as u64;
    if let Some(path) = &args.table {
        write_tensors(path, &paper_cost_table(&config, rounding)?)?;
    }
    if args.output.json {
        let mut value = described(args, &config, "paper");
        value["macs"] = json!(total);
        value["parts"] = json!({"full_block": block, "blocks": geometry.depth, "rest": base});
        return print_json(&value);
    }
    print(&format!(
        "{}, MACs per image as in the published tables\nfull block    {:.5} G\nblocks        {}\n\
         rest          {:.2} G\ntotal         {:.2} G  ({})",
        name(args, &config),
        block as f64 / 1e9,
        geometry.depth,
        base as f64 / 1e9,
        total as f64 / 1e9,
        macs(total as f64),
    ))
}

/// Returns the model's name for people.
fn name(args: &MacsArgs, config: &ModelConfig) -> String {
    match &args.model.checkpoint {
        Some(path) => format!("{} ({})", path.display(), config.preset),
        None => config.preset.clone(),
    }
}

/// Returns the model and the accounting for programs.
fn described(args: &MacsArgs, config: &ModelConfig, accounting: &str) -> Value {
    let mut value = json!({"preset": config.preset, "accounting": accounting});
    if let Some(path) = &args.model.checkpoint {
        value["checkpoint"] = json!(path);
    }
    value
}
