//! Text as HTML and SVG hold it.

/// Returns the text with the characters of markup replaced, so that names from data stay text.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
