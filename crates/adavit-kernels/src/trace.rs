//! A span around each fused operation, for whoever profiles; without a subscriber it costs one
//! atomic load.

/// The target of the spans of this crate's operations. Each span has the fields `name` and `macs`,
/// the multiply-adds of its products, and covers the operation on the thread that called it. Where
/// a batch is divided among threads a span with the field `at_once`, the number of threads, goes
/// around those of each: the operations within take that part of the time. (A thread that waits
/// within an operation may take over another's piece, whose time then counts as that operation's
/// too; with 2 threads there is none to take over.)
pub const SPAN_TARGET: &str = "adavit_kernels::operation";

/// Starts the span of one of `n` pieces of work that run at once, a span with the field `at_once`
/// around the operations of each; it ends when the result is dropped.
pub(crate) fn at_once(n: usize) -> tracing::span::EnteredSpan {
    tracing::trace_span!(target: SPAN_TARGET, "piece", at_once = n as u64).entered()
}

/// Starts the span of an operation; it ends when the result is dropped.
pub(crate) fn operation(name: &'static str, macs: usize) -> tracing::span::EnteredSpan {
    tracing::trace_span!(target: SPAN_TARGET, "operation", name, macs = macs as u64).entered()
}
