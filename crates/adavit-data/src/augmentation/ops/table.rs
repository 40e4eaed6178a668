//! Operations that map each byte on its own: a table of 256 bytes for each channel.
//!
//! Results are Pillow's, to the last bit (`ImageOps` and `Image.point`).

use crate::picture::Picture;

/// What becomes of each byte.
pub(super) type Table = [u8; 256];

/// The bytes as they are.
pub(super) fn identity() -> Table {
    std::array::from_fn(|byte| byte as u8)
}

/// 255 minus the byte.
pub(super) fn invert() -> Table {
    std::array::from_fn(|byte| 255 - byte as u8)
}

/// Bytes of `threshold` and above are inverted.
pub(super) fn solarize(threshold: f64) -> Table {
    std::array::from_fn(|byte| {
        let value = byte as u8;
        if (byte as f64) < threshold {
            value
        } else {
            255 - value
        }
    })
}

/// `add` is added to bytes below 128.
pub(super) fn solarize_add(add: u8) -> Table {
    std::array::from_fn(|byte| {
        let value = byte as u8;
        if value < 128 {
            value.saturating_add(add)
        } else {
            value
        }
    })
}

/// The highest `bits` bits are kept; all of them from 8 on.
pub(super) fn posterize(bits: u32) -> Table {
    let mask = 0xff_u8.checked_shl(8_u32.saturating_sub(bits)).unwrap_or(0);
    std::array::from_fn(|byte| byte as u8 & mask)
}

/// Replaces each byte by that of the table, the same for all channels.
pub(super) fn apply(picture: &mut Picture, table: &Table) {
    for byte in picture.bytes_mut() {
        *byte = table[*byte as usize];
    }
}

/// Stretches each channel so that its darkest byte becomes 0 and its lightest 255.
pub(super) fn auto_contrast(picture: &mut Picture) {
    per_channel(picture, |histogram| {
        let lowest = histogram.iter().position(|&n| n > 0).unwrap_or(0);
        let highest = histogram.iter().rposition(|&n| n > 0).unwrap_or(0);
        if highest <= lowest {
            return identity();
        }
        let scale = 255.0 / (highest - lowest) as f64;
        let offset = -(lowest as f64) * scale;
        // A conversion from float to byte truncates and saturates.
        std::array::from_fn(|byte| (byte as f64 * scale + offset) as u8)
    });
}

/// Makes each channel's histogram as even as a table can.
pub(super) fn equalize(picture: &mut Picture) {
    per_channel(picture, |histogram| {
        let used = histogram.iter().filter(|&&n| n > 0).count();
        let last = histogram.iter().rfind(|&&n| n > 0).copied().unwrap_or(0);
        let step = (histogram.iter().sum::<u64>() - last) / 255;
        if used <= 1 || step == 0 {
            return identity();
        }
        let mut below = step / 2;
        std::array::from_fn(|byte| {
            let value = (below / step).min(255) as u8;
            below += histogram[byte];
            value
        })
    });
}

/// Applies to each channel the table that its histogram decides.
fn per_channel(picture: &mut Picture, table: impl Fn(&[u64; 256]) -> Table) {
    let channels = picture.channels();
    let tables: Vec<Table> = (0..channels)
        .map(|channel| {
            let mut histogram = [0_u64; 256];
            for byte in picture.bytes()[channel..].iter().step_by(channels) {
                histogram[*byte as usize] += 1;
            }
            table(&histogram)
        })
        .collect();
    if let [table] = &tables[..] {
        return apply(picture, table);
    }
    for pixel in picture.bytes_mut().chunks_exact_mut(channels) {
        for (byte, table) in pixel.iter_mut().zip(&tables) {
            *byte = table[*byte as usize];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn posterize_keeps_the_highest_bits() {
        assert_eq!(posterize(8), identity());
        assert_eq!(posterize(9), identity());
        assert_eq!(posterize(1)[0x7f..=0x80], [0, 0x80]);
        assert_eq!(posterize(0), [0; 256]);
    }

    #[test]
    fn solarize_of_everything_inverts_and_of_nothing_changes_nothing() {
        assert_eq!(solarize(0.0), invert());
        assert_eq!(solarize(256.0), identity());
        assert_eq!(solarize(128.0)[127..=128], [127, 127]);
    }

    #[test]
    fn solarize_add_leaves_light_bytes() {
        let table = solarize_add(110);
        assert_eq!(table[126..=128], [236, 237, 128]);
        assert_eq!(solarize_add(128)[127], 255);
    }

    #[test]
    fn a_constant_picture_has_no_contrast_to_stretch() {
        let mut picture = Picture::new(3, (2, 2), [9, 40, 200].repeat(4)).unwrap();
        let before = picture.clone();
        auto_contrast(&mut picture);
        equalize(&mut picture);
        assert_eq!(picture, before);
    }
}
