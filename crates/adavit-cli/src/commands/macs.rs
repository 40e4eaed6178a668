//! `adavit macs`: what a preset costs.

use adavit_decision::{DecisionConfig, MacsParts};
use adavit_model::{ModelConfig, paper_cost_table, write_tensors};
use adavit_train::Error;
use anyhow::Result;
use serde_json::json;

use crate::Ended;
use crate::args::{Accounting, MacsArgs};
use crate::output::{macs, print, print_json};

pub(crate) fn run(args: &MacsArgs) -> Result<Ended> {
    match args.accounting {
        Accounting::Exact if args.table.is_some() => {
            let message = "table: the tables are of the paper's accounting; add --accounting paper";
            return Err(Error::Input(message.into()).into());
        }
        Accounting::Exact => exact(args)?,
        Accounting::Paper => paper(args)?,
    }
    Ok(Ended::Done)
}

fn exact(args: &MacsArgs) -> Result<()> {
    let geometry = ModelConfig::preset(&args.preset)?.geometry();
    let dense = geometry.dense_parts();
    let blocks = vec![geometry.all(); geometry.depth];
    let kept = geometry.image_parts(&DecisionConfig::default(), &blocks);
    if args.json {
        let parts = |parts: &MacsParts| json!({"macs": parts.total(), "parts": parts});
        return print_json(&json!({
            "preset": args.preset,
            "accounting": "exact",
            "dense": parts(&dense),
            "adaptive_all_kept": parts(&kept),
        }));
    }
    let mut lines = vec![
        format!("{}, exact MACs per image (1 MAC = 2 FLOPs)", args.preset),
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
    let config = ModelConfig::preset(&args.preset)?;
    let base = config.paper_base_macs()?;
    let geometry = config.geometry();
    let rounding = args.rounding.into();
    let block = geometry.paper_block_macs(geometry.all(), rounding);
    let total = base + block * geometry.depth as u64;
    if let Some(path) = &args.table {
        write_tensors(path, &paper_cost_table(&config, rounding)?)?;
    }
    if args.json {
        return print_json(&json!({
            "preset": args.preset,
            "accounting": "paper",
            "macs": total,
            "parts": {"full_block": block, "blocks": geometry.depth, "rest": base},
        }));
    }
    print(&format!(
        "{}, MACs per image as the published tables count\nfull block    {:.5} G\nblocks        {}\n\
         rest          {:.2} G\ntotal         {:.2} G  ({})",
        args.preset,
        block as f64 / 1e9,
        geometry.depth,
        base as f64 / 1e9,
        total as f64 / 1e9,
        macs(total as f64),
    ))
}
