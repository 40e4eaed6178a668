//! Mirrored pictures.

use crate::picture::Picture;

/// Reverses the columns.
pub(super) fn left_right(picture: &mut Picture) {
    let (_, width) = picture.size();
    match picture.channels() {
        3 => reverse_rows::<3>(picture.bytes_mut(), width),
        _ => reverse_rows::<1>(picture.bytes_mut(), width),
    }
}

fn reverse_rows<const C: usize>(bytes: &mut [u8], width: usize) {
    for row in bytes.as_chunks_mut::<C>().0.chunks_exact_mut(width) {
        row.reverse();
    }
}

/// Reverses the rows.
pub(super) fn top_bottom(picture: &mut Picture) {
    let (height, width) = picture.size();
    let row = width * picture.channels();
    let bytes = picture.bytes_mut();
    for y in 0..height / 2 {
        let (above, below) = bytes.split_at_mut((height - 1 - y) * row);
        above[y * row..][..row].swap_with_slice(&mut below[..row]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flipped(channels: usize, size: (usize, usize), flip: fn(&mut Picture)) -> Vec<u8> {
        let bytes = (0..(size.0 * size.1 * channels) as u8).collect();
        let mut picture = Picture::new(channels, size, bytes).unwrap();
        flip(&mut picture);
        picture.bytes().to_vec()
    }

    #[test]
    fn columns_are_reversed_pixel_by_pixel() {
        assert_eq!(flipped(1, (2, 3), left_right), [2, 1, 0, 5, 4, 3]);
        assert_eq!(flipped(3, (1, 2), left_right), [3, 4, 5, 0, 1, 2]);
    }

    #[test]
    fn rows_are_reversed() {
        assert_eq!(flipped(1, (3, 2), top_bottom), [4, 5, 2, 3, 0, 1]);
        assert_eq!(flipped(3, (2, 1), top_bottom), [3, 4, 5, 0, 1, 2]);
        assert_eq!(flipped(1, (1, 3), top_bottom), [0, 1, 2]);
    }
}
