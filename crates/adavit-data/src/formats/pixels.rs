//! Pictures that a format holds as pixels.

use image::codecs::png::PngEncoder;
use image::{ExtendedColorType, ImageEncoder};

use crate::picture::Picture;

/// How the bytes of a picture are arranged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// `(channels, height, width)`.
    ChannelsFirst,
    /// `(height, width, channels)`.
    ChannelsLast,
}

/// The size and the arrangement of pictures that are all alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    pub(crate) channels: usize,
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) layout: Layout,
}

impl Shape {
    /// Returns the number of bytes of a picture.
    pub(crate) fn bytes(&self) -> usize {
        self.channels * self.height * self.width
    }

    /// Returns the picture of these bytes.
    pub(crate) fn picture(&self, bytes: &[u8]) -> Result<Picture, String> {
        let bytes = match self.layout {
            Layout::ChannelsFirst if self.channels > 1 && bytes.len() == self.bytes() => {
                let plane = self.height * self.width;
                let pixel = |i: usize| (0..self.channels).map(move |c| c * plane + i);
                (0..plane).flat_map(pixel).map(|i| bytes[i]).collect()
            }
            _ => bytes.to_vec(),
        };
        Picture::new(self.channels, (self.height, self.width), bytes)
    }
}

/// Returns the bytes of a PNG file.
pub(crate) fn png(picture: &Picture) -> Result<Vec<u8>, String> {
    let (height, width) = picture.size();
    let colour = match picture.channels() {
        1 => ExtendedColorType::L8,
        3 => ExtendedColorType::Rgb8,
        n => return Err(format!("expected 1 or 3 channels for pictures, found {n}")),
    };
    let mut bytes = Vec::new();
    PngEncoder::new(&mut bytes)
        .write_image(picture.bytes(), width as u32, height as u32, colour)
        .map_err(|error| error.to_string())?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn planes_become_pixels_and_a_png_holds_them() {
        let shape = Shape {
            channels: 3,
            height: 1,
            width: 2,
            layout: Layout::ChannelsFirst,
        };
        let picture = shape.picture(&[1, 2, 3, 4, 5, 6]).unwrap();
        assert_eq!(picture.bytes(), [1, 3, 5, 2, 4, 6]);
        assert_eq!(
            Picture::decode(&png(&picture).unwrap(), 3).unwrap(),
            picture
        );
        assert!(shape.picture(&[1, 2]).is_err());
    }
}
