//! Labelled images in memory, one byte per channel and pixel.

use crate::augmentation::augment::KeyedAugment;
use crate::error::{Error, Result};
use crate::labelled::Labelled;
use crate::normalization::{ChannelSums, Normalization};

/// Labelled images of one size, as bytes.
///
/// # Shapes
/// images `(N, channels, height, width)` u8, labels `(N,)` u8, all below [`Self::num_classes`].
#[derive(Clone, PartialEq, Eq)]
pub struct Dataset {
    name: String,
    channels: usize,
    height: usize,
    width: usize,
    images: Vec<u8>,
    labels: Vec<u8>,
    class_names: Vec<String>,
}

impl Dataset {
    /// Returns a data set of `labels.len()` images of `[channels, height, width]`.
    ///
    /// # Errors
    /// [`Error::Inconsistent`] if there is no image, a dimension is 0, the number of bytes does not
    /// match labels and dimensions, there are more than 256 classes, or a label has no class.
    pub fn new(
        name: &str,
        [channels, height, width]: [usize; 3],
        images: Vec<u8>,
        labels: Vec<u8>,
        class_names: Vec<String>,
    ) -> Result<Self> {
        let dims = [channels, height, width];
        let fault = bad_size(dims, labels.len(), images.len())
            .or_else(|| bad_label(&labels, class_names.len()));
        if let Some(message) = fault {
            return Err(Error::Inconsistent {
                name: name.to_owned(),
                message,
            });
        }
        Ok(Self {
            name: name.to_owned(),
            channels,
            height,
            width,
            images,
            labels,
            class_names,
        })
    }

    /// Returns the name under which the data set was loaded.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the number of images, at least 1.
    pub fn len(&self) -> usize {
        self.labels.len()
    }

    /// Returns false: a data set has at least one image.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Returns the size of an image, `[channels, height, width]`.
    pub fn dims(&self) -> [usize; 3] {
        [self.channels, self.height, self.width]
    }

    /// Returns the bytes of image `i`, `(channels, height, width)`.
    ///
    /// # Panics
    /// If `i` is not below [`Self::len`].
    pub fn image(&self, i: usize) -> &[u8] {
        let size = self.channels * self.height * self.width;
        &self.images[i * size..(i + 1) * size]
    }

    /// Returns the label of image `i`.
    ///
    /// # Panics
    /// If `i` is not below [`Self::len`].
    pub fn label(&self, i: usize) -> u8 {
        self.labels[i]
    }

    /// Returns all labels, `(N,)`.
    pub fn labels(&self) -> &[u8] {
        &self.labels
    }

    /// Returns the number of classes; some may have no image.
    pub fn num_classes(&self) -> usize {
        self.class_names.len()
    }

    /// Returns the name of every class, in the order of the labels.
    pub fn class_names(&self) -> &[String] {
        &self.class_names
    }

    /// Returns the indices of all images, for an evaluation.
    pub fn indices(&self) -> Vec<u32> {
        (0..self.len() as u32).collect()
    }

    /// Returns mean and standard deviation per channel over all images, of pixels scaled to [0, 1],
    /// rounded to f32.
    ///
    /// Sums are integers, so the result does not depend on their order. A constant channel gets
    /// the standard deviation 1, so that normalising never divides by zero.
    pub fn normalization(&self) -> Normalization {
        let mut sums = ChannelSums::new(self.channels);
        let size = self.channels * self.height * self.width;
        for image in self.images.chunks_exact(size) {
            sums.add(image);
        }
        sums.normalization()
    }
}

impl Labelled for Dataset {
    fn name(&self) -> &str {
        &self.name
    }

    fn len(&self) -> usize {
        self.labels.len()
    }

    fn class_names(&self) -> &[String] {
        &self.class_names
    }

    fn dims(&self) -> [usize; 3] {
        self.dims()
    }

    fn label(&self, index: usize) -> u32 {
        u32::from(self.labels[index])
    }

    fn is_ready(&self) -> bool {
        true
    }

    fn normalization(&self) -> Result<Normalization> {
        Ok(self.normalization())
    }

    fn identify(&self, take: &mut dyn FnMut(&[u8])) -> Result<()> {
        take(&self.labels);
        take(&self.images);
        Ok(())
    }

    fn pixels(&self, index: usize, augment: Option<&KeyedAugment>, out: &mut [u8]) -> Result<()> {
        match augment {
            Some(augment) => augment.apply(index as u64, self.image(index), self.dims(), out)?,
            None => out.copy_from_slice(self.image(index)),
        }
        Ok(())
    }
}

/// Prints the sizes, not millions of pixels.
impl std::fmt::Debug for Dataset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dataset")
            .field("name", &self.name)
            .field("len", &self.len())
            .field("dims", &self.dims())
            .field("class_names", &self.class_names)
            .finish_non_exhaustive()
    }
}

/// Says why `n_bytes` bytes are not `n` images of `dims`, if they are not.
fn bad_size(dims: [usize; 3], n: usize, n_bytes: usize) -> Option<String> {
    let [channels, height, width] = dims;
    if n == 0 || dims.contains(&0) {
        return Some(format!(
            "expected at least one image of at least one pixel, found {n} of \
             {channels}x{height}x{width}"
        ));
    }
    let expected = dims.iter().try_fold(n, |n, &side| n.checked_mul(side));
    (expected != Some(n_bytes)).then(|| {
        format!(
            "expected the bytes of {n} images of {channels}x{height}x{width}, found {n_bytes} bytes"
        )
    })
}

/// Says which label has no class, or that there are too many classes, if so.
pub(crate) fn bad_label(labels: &[u8], num_classes: usize) -> Option<String> {
    if num_classes > 256 {
        return Some(format!(
            "expected at most 256 classes, which labels of one byte can name, found {num_classes}"
        ));
    }
    let i = labels.iter().position(|&l| l as usize >= num_classes)?;
    Some(format!(
        "label {} of image {i} is not below the number of classes, {num_classes}",
        labels[i]
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(n: usize) -> Vec<String> {
        (0..n).map(|i| i.to_string()).collect()
    }

    #[test]
    fn mean_and_std_are_per_channel_and_a_constant_channel_has_std_one() {
        let images = vec![0, 255, 7, 7, 255, 0, 7, 7];
        let set = Dataset::new("x", [2, 1, 2], images, vec![0, 1], names(2)).unwrap();
        let stats = set.normalization();
        assert_eq!(stats.mean, [0.5, f64::from(7.0f32 / 255.0)]);
        assert_eq!(stats.std, [0.5, 1.0]);
    }

    #[test]
    fn image_is_its_own_slice() {
        let set = Dataset::new("x", [1, 1, 2], vec![1, 2, 3, 4], vec![1, 0], names(2)).unwrap();
        assert_eq!((set.image(0), set.label(0)), (&[1, 2][..], 1));
        assert_eq!((set.image(1), set.label(1)), (&[3, 4][..], 0));
    }

    #[test]
    fn inconsistent_parts_are_refused() {
        let refused = |dims, images: &[u8], labels: &[u8], classes| {
            let result = Dataset::new("x", dims, images.to_vec(), labels.to_vec(), names(classes));
            result.unwrap_err().to_string()
        };
        assert!(refused([1, 1, 1], &[], &[], 1).contains("at least one image"));
        assert!(refused([1, 0, 1], &[], &[0], 1).contains("at least one pixel"));
        assert!(refused([1, 1, 2], &[1], &[0], 1).contains("found 1 bytes"));
        assert!(refused([1, 1, 1], &[1], &[0], 257).contains("at most 256 classes"));
        assert!(refused([1, 1, 1], &[1], &[3], 3).contains("label 3 of image 0"));
    }
}
