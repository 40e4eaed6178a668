//! Ranges of settings, checked in one wording.

use crate::error::{Error, Result};

/// Settings of one table, by the dotted path of the table; empty for those on top.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ranges<'a> {
    table: &'a str,
}

impl<'a> Ranges<'a> {
    /// Returns the checks for the settings of `table`, as in `dense.optimizer`.
    pub(crate) fn of(table: &'a str) -> Self {
        Self { table }
    }

    /// Returns the error for a setting: what was `expected`, and what was `found`.
    pub(crate) fn unexpected(
        self,
        name: &str,
        expected: &str,
        found: impl std::fmt::Display,
    ) -> Error {
        let dot = if self.table.is_empty() { "" } else { "." };
        Error::Setting(format!(
            "{}{dot}{name}: expected {expected}, found {found}",
            self.table
        ))
    }

    /// Checks that `value` satisfies `fits`, which `expected` says in words.
    pub(crate) fn check(self, name: &str, value: f64, fits: bool, expected: &str) -> Result<()> {
        if fits {
            Ok(())
        } else {
            Err(self.unexpected(name, &format!("a number {expected}"), value))
        }
    }

    /// Checks that each value is in [0, 1].
    pub(crate) fn ratios<const N: usize>(self, ratios: [(&str, f64); N]) -> Result<()> {
        ratios.into_iter().try_for_each(|(name, ratio)| {
            self.check(name, ratio, (0.0..=1.0).contains(&ratio), "in [0, 1]")
        })
    }

    /// Checks that each value is in [0, 1).
    pub(crate) fn rates<const N: usize>(self, rates: [(&str, f64); N]) -> Result<()> {
        rates.into_iter().try_for_each(|(name, rate)| {
            self.check(name, rate, (0.0..1.0).contains(&rate), "in [0, 1)")
        })
    }

    /// Checks that each value is in (0, 1].
    pub(crate) fn shares<const N: usize>(self, shares: [(&str, f64); N]) -> Result<()> {
        shares.into_iter().try_for_each(|(name, share)| {
            let fits = share > 0.0 && share <= 1.0;
            self.check(name, share, fits, "in (0, 1]")
        })
    }

    /// Checks that each value is finite and at least 0.
    pub(crate) fn weights<const N: usize>(self, weights: [(&str, f64); N]) -> Result<()> {
        weights.into_iter().try_for_each(|(name, weight)| {
            let fits = weight.is_finite() && weight >= 0.0;
            self.check(name, weight, fits, "of at least 0")
        })
    }
}
