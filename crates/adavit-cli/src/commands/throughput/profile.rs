//! Time and work of each operation, from the spans of `adavit-kernels`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;
use serde::Serialize;
use tracing::Subscriber;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::{LookupSpan, Registry};

/// The name of what lies between the spans.
const REST: &str = "rest";

/// One operation's share of an iteration.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    pub(crate) operation: String,
    /// Per iteration.
    pub(crate) ms: f64,
    /// Of its products; none for operations without.
    pub(crate) gflops: Option<f64>,
    /// Of the whole iteration.
    pub(crate) share: f64,
}

/// Runs `work` some times and returns where its time went, the largest part first.
pub(crate) fn profile(iterations: u32, mut work: impl FnMut() -> Result<()>) -> Result<Vec<Row>> {
    let totals = Totals::default();
    let subscriber = Registry::default().with(totals.clone());
    let time = tracing::subscriber::with_default(subscriber, || -> Result<Duration> {
        let start = Instant::now();
        for _ in 0..iterations {
            work()?;
        }
        Ok(start.elapsed())
    })?;
    let mut totals = std::mem::take(&mut *totals.lock());
    let known: Duration = totals.values().map(|total| total.time).sum();
    let rest = totals.entry(REST.to_string()).or_default();
    rest.time += time.saturating_sub(known);
    let mut rows: Vec<Row> = totals
        .into_iter()
        .map(|(operation, total)| Row {
            operation,
            ms: total.time.as_secs_f64() * 1e3 / f64::from(iterations),
            gflops: (total.macs > 0)
                .then(|| 2.0 * total.macs as f64 / total.time.as_secs_f64() / 1e9),
            share: total.time.as_secs_f64() / time.as_secs_f64(),
        })
        .collect();
    rows.sort_by(|a, b| b.ms.total_cmp(&a.ms));
    Ok(rows)
}

/// What an operation took so far.
#[derive(Debug, Clone, Copy, Default)]
struct Total {
    time: Duration,
    macs: u64,
}

#[derive(Debug, Clone, Default)]
struct Totals(Arc<Mutex<BTreeMap<String, Total>>>);

impl Totals {
    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Total>> {
        // Adding up leaves nothing half-done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A span of an operation that is running, or of work that runs at the same time as other work.
#[derive(Debug, Default)]
struct Operation {
    name: String,
    macs: u64,
    start: Option<Instant>,
    /// On how many threads work runs at once; none for an operation.
    at_once: Option<u32>,
}

impl Visit for Operation {
    fn record_u64(&mut self, field: &Field, value: u64) {
        match field.name() {
            "macs" => self.macs = value,
            "at_once" => self.at_once = u32::try_from(value).ok(),
            _ => {}
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() == "name" {
            self.name = value.to_string();
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Totals {
    fn on_new_span(&self, attributes: &Attributes, id: &Id, context: Context<S>) {
        // candle's own spans lie within ours or in the rest.
        if attributes.metadata().target() != adavit_kernels::SPAN_TARGET {
            return;
        }
        let mut operation = Operation::default();
        attributes.record(&mut operation);
        operation.start = Some(Instant::now());
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(operation);
        }
    }

    fn on_close(&self, id: Id, context: Context<S>) {
        let Some(span) = context.span(&id) else {
            return;
        };
        let Some(operation) = span.extensions_mut().remove::<Operation>() else {
            return;
        };
        if operation.at_once.is_some() {
            return;
        }
        // What runs on each of several threads takes its part of the time.
        let at_once = span.scope().skip(1).find_map(|around| {
            let around = around.extensions();
            around.get::<Operation>()?.at_once
        });
        if let Some(start) = operation.start {
            let mut totals = self.lock();
            let total = totals.entry(operation.name).or_default();
            total.time += start.elapsed() / at_once.unwrap_or(1);
            total.macs += operation.macs;
        }
    }
}
