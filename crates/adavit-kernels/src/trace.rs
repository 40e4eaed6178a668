//! A span around each fused operation, for profilers. Without a subscriber a span costs one atomic
//! load.

/// The target of the spans of this crate's operations.
///
/// Each span has the fields `name` and `macs`, the multiply-adds of its products. It covers the
/// operation on the thread that called it.
///
/// Where [`side_by_side`] divides a batch among threads, a span with the field `at_once`, the number of
/// threads, surrounds the spans of each item. An operation inside such a span used 1 / `at_once` of the
/// machine. With 3 threads or more, a thread that waits inside an operation may run another item in
/// the meantime; the span of the waiting operation then includes the time of that item.
///
/// [`side_by_side`]: crate::side_by_side
pub const SPAN_TARGET: &str = "adavit_kernels::operation";

/// Starts the span of one of `n` items that run at the same time; it ends when the result is dropped.
pub(crate) fn at_once(n: usize) -> tracing::span::EnteredSpan {
    tracing::trace_span!(target: SPAN_TARGET, "piece", at_once = n as u64).entered()
}

/// Starts the span of an operation; it ends when the result is dropped.
pub(crate) fn operation(name: &'static str, macs: usize) -> tracing::span::EnteredSpan {
    tracing::trace_span!(target: SPAN_TARGET, "operation", name, macs = macs as u64).entered()
}
