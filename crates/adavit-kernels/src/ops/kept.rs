//! What a forward leaves for its backward.

use std::sync::{Mutex, PoisonError};

/// A place that the forward fills and the first backward empties; there is none where no gradient
/// will be wanted.
#[derive(Debug)]
pub(crate) struct Kept<T>(Option<Mutex<Option<T>>>);

impl<T> Kept<T> {
    pub(crate) fn new(wanted: bool) -> Self {
        Self(wanted.then(|| Mutex::new(None)))
    }

    /// Whether something is to be put here.
    pub(crate) fn is_wanted(&self) -> bool {
        self.0.is_some()
    }

    pub(crate) fn put(&self, value: T) {
        if let Some(place) = &self.0 {
            *place.lock().unwrap_or_else(PoisonError::into_inner) = Some(value);
        }
    }

    /// Returns what was put, once: a second backward of the same graph finds nothing.
    pub(crate) fn take(&self) -> Option<T> {
        let place = self.0.as_ref()?;
        place.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
