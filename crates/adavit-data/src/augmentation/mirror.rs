//! A line that continues behind its ends as in a mirror.

/// Returns which of `length` pixels is at `place` of a line that `padding` mirrored pixels precede.
///
/// The pixel at the end is not repeated. Lines shorter than the padding are mirrored more than once.
pub(super) fn mirrored(place: usize, padding: usize, length: usize) -> usize {
    if length <= 1 {
        return 0;
    }
    let period = 2 * (length - 1);
    let shifted = (place + period * padding - padding) % period;
    shifted.min(period - shifted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(padding: usize, length: usize) -> Vec<usize> {
        let places = 0..length + 2 * padding;
        places.map(|x| mirrored(x, padding, length)).collect()
    }

    #[test]
    fn the_pixel_at_the_end_is_not_repeated() {
        assert_eq!(line(2, 4), [2, 1, 0, 1, 2, 3, 2, 1]);
        assert_eq!(line(0, 3), [0, 1, 2]);
    }

    #[test]
    fn short_lines_are_mirrored_more_than_once() {
        assert_eq!(line(4, 3), [0, 1, 2, 1, 0, 1, 2, 1, 0, 1, 2]);
        assert_eq!(line(2, 2), [0, 1, 0, 1, 0, 1]);
        assert_eq!(line(2, 1), [0; 5]);
    }
}
