//! From what was found at a path to the parts that training and evaluation take.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::formats::open::Found;
use crate::formats::picture_set::PictureSet;
use crate::labelled::Labelled;
use crate::preprocessing::InputConfig;
use crate::sized_pictures::SizedPictures;
use crate::source::Splits;
use crate::splits::held_out;
use crate::subset::Subset;

/// How pictures become the parts of a training.
#[derive(Debug, Clone)]
pub struct SplitOptions {
    /// What a model takes.
    pub input: InputConfig,
    /// The most bytes of decoded pictures that stay in memory, for all parts together.
    pub cache_bytes: u64,
    /// Whether pictures are decoded fast: see
    /// [`DecodeOptions::fast_decode`](crate::DecodeOptions::fast_decode).
    pub fast_decode: bool,
    /// Share of the pictures that is tested on, in (0, 1), where the data have one part only.
    pub val_split: f64,
    /// Which ones: see [`held_out`].
    pub seed: u64,
}

impl Found {
    /// Returns the parts of a training: with `val` and `test`, val chooses; with one of them, that is
    /// the test set, and held-out training images choose; without parts, a share of the pictures is
    /// the test set.
    ///
    /// # Errors
    /// [`Error::Data`] if there is nothing to train on, [`Error::Setting`] if a share of the pictures
    /// cannot be taken.
    pub fn splits(self, options: &SplitOptions) -> Result<Splits> {
        let pictures: usize = self.parts().map(PictureSet::len).sum();
        let share = |set: &PictureSet| {
            let share = set.len() as f64 / pictures.max(1) as f64;
            (options.cache_bytes as f64 * share) as u64
        };
        let sized = |set: PictureSet| -> Arc<dyn Labelled> {
            let cache_bytes = share(&set);
            let sized = SizedPictures::new(set, options.input.clone());
            Arc::new(sized.fast(options.fast_decode).cached(cache_bytes))
        };
        let name = self.parts().next().map(|set| set.name().to_owned());
        let [train, val, test, whole] =
            [self.train, self.val, self.test, self.whole].map(|part| part.map(sized));
        match (train.or(whole), val, test) {
            (Some(train), val, Some(test)) => Ok(Splits { train, val, test }),
            (Some(train), Some(test), None) => Ok(Splits {
                train,
                val: None,
                test,
            }),
            (Some(all), None, None) => halves(&all, options),
            (None, ..) => Err(Error::Data {
                path: name.unwrap_or_default().into(),
                message: "no part to train on; expected a part called train".into(),
            }),
        }
    }

    /// Returns the pictures to evaluate on: `test`, else `val`, else all where there are no parts.
    ///
    /// # Errors
    /// [`Error::Data`] if there is a part to train on only.
    pub fn tested(self, input: InputConfig) -> Result<SizedPictures> {
        match self.test.or(self.val).or(self.whole) {
            Some(set) => Ok(SizedPictures::new(set, input)),
            None => Err(Error::Data {
                path: self
                    .train
                    .map_or_else(String::new, |set| set.name().to_owned())
                    .into(),
                message: "a part to train on only; expected a part called test or val next to it"
                    .into(),
            }),
        }
    }
}

/// Two parts of pictures that have none.
fn halves(all: &Arc<dyn Labelled>, options: &SplitOptions) -> Result<Splits> {
    let split = held_out(all.len(), options.val_split, options.seed)
        .map_err(|error| Error::Setting(format!("val_split: {error}")))?;
    let part = |part: &str, indices| -> Arc<dyn Labelled> {
        let name = format!("{} ({part})", all.name());
        Arc::new(Subset::new(name, Arc::clone(all), indices))
    };
    Ok(Splits {
        train: part("train", split.train),
        val: None,
        test: part("test", split.held_out),
    })
}
