//! A turn of the hue, as torchvision does it on Pillow's pictures: RGB to HSV in bytes, add, and back.

use crate::picture::Picture;

/// Adds `turn`, in [-0.5, 0.5] of a full turn, to the hue. A picture of one channel has none.
pub(super) fn shift(picture: &mut Picture, turn: f64) {
    if picture.channels() != 3 {
        return;
    }
    // Python's truncation, then the wrap of a byte.
    let add = (turn * 255.0) as i32 as u8;
    for pixel in picture.bytes_mut().as_chunks_mut::<3>().0 {
        let [hue, saturation, value] = to_hsv(*pixel);
        *pixel = to_rgb([hue.wrapping_add(add), saturation, value]);
    }
}

fn to_hsv([r, g, b]: [u8; 3]) -> [u8; 3] {
    let (most, least) = (r.max(g).max(b), r.min(g).min(b));
    if most == least {
        return [0, 0, most];
    }
    let range = f32::from(most - least);
    let saturation = range / f32::from(most);
    let distance = |channel: u8| f32::from(most - channel) / range;
    let (rc, gc, bc) = (distance(r), distance(g), distance(b));
    let sixths = if r == most {
        bc - gc
    } else if g == most {
        (2.0 + f64::from(rc) - f64::from(bc)) as f32
    } else {
        (4.0 + f64::from(gc) - f64::from(rc)) as f32
    };
    let hue = ((f64::from(sixths) / 6.0 + 1.0) % 1.0) as f32;
    [
        (f64::from(hue) * 255.0) as u8,
        (f64::from(saturation) * 255.0) as u8,
        most,
    ]
}

fn to_rgb([h, s, v]: [u8; 3]) -> [u8; 3] {
    if s == 0 {
        return [v; 3];
    }
    let sixths = f64::from(h) * 6.0 / 255.0;
    let sector = sixths.floor();
    let rest = (sixths - sector) as f32;
    let saturation = (f64::from(s) / 255.0) as f32;
    let scaled = |share: f64| (f64::from(v) * share).round() as u8;
    let p = scaled(1.0 - f64::from(saturation));
    let q = scaled(1.0 - f64::from(saturation * rest));
    let t = scaled(1.0 - f64::from(saturation) * (1.0 - f64::from(rest)));
    match sector as u8 % 6 {
        0 => [v, t, p],
        1 => [q, v, p],
        2 => [p, v, t],
        3 => [p, q, v],
        4 => [t, p, v],
        _ => [v, p, q],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greys_have_no_hue_to_turn() {
        let mut grey = Picture::new(3, (1, 2), vec![7, 7, 7, 250, 250, 250]).unwrap();
        let before = grey.clone();
        shift(&mut grey, 0.3);
        assert_eq!(grey, before);
    }

    #[test]
    fn a_third_of_a_turn_makes_red_green() {
        let mut red = Picture::new(3, (1, 1), vec![255, 0, 0]).unwrap();
        shift(&mut red, 1.0 / 3.0);
        assert_eq!(red.bytes(), [0, 255, 0]);
    }
}
