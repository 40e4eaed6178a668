//! Values of options: closed choices, and texts that are parsed.

use adavit_decision::{PaperRounding, Thresholds};
use adavit_experiment::measure::Keep;
use adavit_model::Strategy;
use adavit_train::TrainConfig;
use anyhow::Result;
use clap::ValueEnum;
use toml::{Table, Value};

use crate::exit::bad_input;

/// Most pixels of an image's side: a position embedding for more does not fit into memory.
const MOST_PIXELS: usize = 1 << 13;

/// Reads a number from 1 to `most`.
fn up_to(most: usize, text: &str) -> Result<usize, String> {
    let number = text.trim().parse().ok();
    let number = number.filter(|number| (1..=most).contains(number));
    number.ok_or_else(|| format!("expected between 1 and {most}, found {text:?}"))
}

/// Reads how many classes are reported.
pub(crate) fn top_k(text: &str) -> Result<usize, String> {
    up_to(1000, text)
}

/// Reads how many images go through a model at once.
pub(crate) fn batch_size(text: &str) -> Result<usize, String> {
    up_to(1 << 24, text)
}

/// Reads how many classes a head has.
pub(crate) fn num_classes(text: &str) -> Result<usize, String> {
    up_to(1_000_000, text)
}

/// How decisions are carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Exec {
    /// Everything is computed; gates are factors of 0 or 1.
    Masked,
    /// What gates turn off is skipped.
    Sparse,
}

/// How the sparse path skips heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum StrategyArg {
    /// The faster one for the shape, by measurement.
    Auto,
    /// Compute kept heads only.
    Exact,
    /// Compute all heads where at least one is kept.
    Whole,
}

impl From<StrategyArg> for Strategy {
    fn from(strategy: StrategyArg) -> Self {
        match strategy {
            StrategyArg::Auto => Self::Auto,
            StrategyArg::Exact => Self::Exact,
            StrategyArg::Whole => Self::Whole,
        }
    }
}

/// How multiply-adds are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Accounting {
    /// Every product, decision networks included.
    Exact,
    /// As in the published tables.
    Paper,
}

/// How the paper's accounting counts tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Rounding {
    /// As in the published tables, whose float32 product loses a token at eleven counts.
    Published,
    /// Every token counts.
    Exact,
}

impl From<Rounding> for PaperRounding {
    fn from(rounding: Rounding) -> Self {
        match rounding {
            Rounding::Published => Self::Published,
            Rounding::Exact => Self::Exact,
        }
    }
}

/// Reads `H` or `HxW`: height and width.
pub(crate) fn img_size(text: &str) -> Result<(usize, usize), String> {
    let side = |side: &str| {
        up_to(MOST_PIXELS, side).map_err(|_| {
            format!("expected pixels as H or HxW, at most {MOST_PIXELS}, found {text:?}")
        })
    };
    match text.split_once('x') {
        Some((height, width)) => Ok((side(height)?, side(width)?)),
        None => side(text).map(|side| (side, side)),
    }
}

/// Reads `tokens=T,heads=H,blocks=B`, in any order.
fn axes(text: &str) -> Result<[Option<f64>; 3], String> {
    let mut axes = [None; 3];
    for part in text.split(',') {
        let expected = || format!("expected tokens=T, heads=H or blocks=B, found {part:?}");
        let (name, value) = part.split_once('=').ok_or_else(expected)?;
        let names = ["tokens", "heads", "blocks"];
        let axis = names.iter().position(|axis| *axis == name.trim());
        let axis = axis.ok_or_else(expected)?;
        axes[axis] = Some(value.trim().parse().map_err(|_| expected())?);
    }
    Ok(axes)
}

pub(crate) fn keep(text: &str) -> Result<Keep, String> {
    let axes = axes(text)?;
    if let Some(share) = axes
        .iter()
        .flatten()
        .find(|share| !(**share > 0.0 && **share <= 1.0))
    {
        return Err(format!("expected shares in (0, 1], found {share}"));
    }
    let [tokens, heads, blocks] = axes.map(|share| share.unwrap_or(1.0));
    Ok(Keep {
        tokens,
        heads,
        blocks,
    })
}

/// Thresholds that replace a checkpoint's; an axis that is left out keeps its own.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct GateThresholds([Option<f64>; 3]);

impl GateThresholds {
    pub(crate) fn over(self, thresholds: Thresholds) -> Thresholds {
        let [tokens, heads, blocks] = self.0;
        Thresholds {
            tokens: tokens.unwrap_or(thresholds.tokens),
            heads: heads.unwrap_or(thresholds.heads),
            blocks: blocks.unwrap_or(thresholds.blocks),
        }
    }
}

pub(crate) fn gate_thresholds(text: &str) -> Result<GateThresholds, String> {
    let axes = match text.trim().parse() {
        Ok(threshold) => [Some(threshold); 3],
        Err(_) => axes(text)?,
    };
    match axes.iter().flatten().find(|t| !(**t > 0.0 && **t < 1.0)) {
        Some(threshold) => Err(format!("expected thresholds in (0, 1), found {threshold}")),
        None => Ok(GateThresholds(axes)),
    }
}

/// The most multiply-adds of an image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum MaxMacs {
    /// Of the dense model's.
    Share(f64),
    /// As a number.
    Macs(u64),
}

impl MaxMacs {
    /// Returns the multiply-adds, for a model whose dense path has `dense`.
    pub(crate) fn macs(self, dense: u64) -> u64 {
        match self {
            Self::Share(share) => (dense as f64 * share) as u64,
            Self::Macs(macs) => macs,
        }
    }
}

/// Reads a share of the dense model's multiply-adds, or a number of them with or without a unit.
pub(crate) fn max_macs(text: &str) -> Result<MaxMacs, String> {
    let text = text.trim();
    let units = [('K', 1e3), ('M', 1e6), ('G', 1e9), ('T', 1e12)];
    let unit = units.iter().find_map(|(unit, factor)| {
        let number = text.strip_suffix(|c: char| c.eq_ignore_ascii_case(unit))?;
        Some((number, *factor))
    });
    let (number, factor) = unit.unwrap_or((text, 1.0));
    let expected = || {
        format!(
            "expected a share of the dense model's MACs in (0, 1], or MACs as 12M, 2.3G or \
             12000000, found {text:?}"
        )
    };
    let number: f64 = number.trim().parse().map_err(|_| expected())?;
    let macs = (number * factor).round();
    if unit.is_none() && number > 0.0 && number <= 1.0 {
        return Ok(MaxMacs::Share(number));
    }
    // A number without a unit that is no whole one is a share out of range.
    let whole = unit.is_some() || number.fract() == 0.0;
    if whole && (1.0..9e15).contains(&macs) {
        return Ok(MaxMacs::Macs(macs as u64));
    }
    Err(expected())
}

/// Reads `key=value`, a line of TOML: dots in the key name tables, and a bare word is a string.
pub(crate) fn setting(text: &str) -> Result<Table, String> {
    let expected = || format!("expected key=value, as in dense.optimizer.lr=1e-3, found {text:?}");
    let (key, value) = text.split_once('=').ok_or_else(expected)?;
    let table = text.parse::<Table>();
    let table = table.or_else(|_| format!("{key}={}", Value::from(value.trim())).parse());
    let table = table.map_err(|_| expected())?;
    if table.len() == 1 {
        Ok(table)
    } else {
        Err(expected())
    }
}

/// Returns the settings in a TOML text, with each `--set` over them.
pub(crate) fn overridden(text: &str, set: &[Table]) -> Result<TrainConfig> {
    TrainConfig::from_toml_and(text, set.iter().cloned())
        .map_err(|error| bad_input(format!("--set: {error}")))
}
