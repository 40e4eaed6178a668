//! What a forward saves for its backward.

use std::sync::{Mutex, PoisonError};

/// A place that the forward fills and the first backward empties. Without a wanted gradient it stores
/// nothing.
#[derive(Debug)]
pub(crate) struct Saved<T>(Option<Mutex<Option<T>>>);

impl<T> Saved<T> {
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

    /// Returns the saved value, once: a second backward of the same graph finds none.
    pub(crate) fn take(&self) -> Option<T> {
        let place = self.0.as_ref()?;
        place.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}
