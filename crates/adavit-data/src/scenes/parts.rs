//! The three parts of the scenes, of garments that no two parts share.

use std::sync::Arc;

use crate::error::Result;
use crate::scenes::garments::Garments;
use crate::scenes::protocol::{HELD_OUT_OF, SEED};
use crate::scenes::set::{FashionScenes, ScenePart};
use crate::source::Datasets;
use crate::splits::class_balanced;

/// The scenes to train on, to choose by and to test on.
#[derive(Debug)]
pub(super) struct SceneParts {
    pub(super) train: FashionScenes,
    pub(super) held_out: FashionScenes,
    pub(super) test: FashionScenes,
}

impl SceneParts {
    /// Returns scenes of these garments. A tenth of the training garments of each class, of the smallest
    /// class if they differ, is for the held-out scenes.
    ///
    /// # Errors
    /// If a class has fewer than two training garments or no test garment, or a garment cannot be used.
    pub(super) fn of(garments: Datasets) -> Result<Self> {
        let test = garments.test.indices();
        let test = Garments::new(Arc::new(garments.test), test)?;
        let set = Arc::new(garments.train);
        // Checks the classes before they are counted.
        Garments::new(Arc::clone(&set), set.indices())?;
        let mut counts = vec![0_usize; set.num_classes()];
        set.labels()
            .iter()
            .for_each(|label| counts[usize::from(*label)] += 1);
        let smallest = counts.into_iter().min().unwrap_or(0);
        let per_class = (smallest / HELD_OUT_OF).max(1);
        let held_out = class_balanced(set.labels(), per_class, SEED)?;
        let kept = |index: &u32| held_out.binary_search(index).is_err();
        let train = set.indices().into_iter().filter(kept).collect();
        Ok(Self {
            train: FashionScenes::new(ScenePart::Train, Garments::new(Arc::clone(&set), train)?),
            held_out: FashionScenes::new(ScenePart::HeldOut, Garments::new(set, held_out)?),
            test: FashionScenes::new(ScenePart::Test, test),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::source::load;

    fn shipped() -> Datasets {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        load("fashion-mnist-subset", Some(&repository)).unwrap()
    }

    #[test]
    fn parts_are_of_different_garments() {
        let garments = shipped();
        let parts = SceneParts::of(garments.clone()).unwrap();
        let [train, held_out, test] = [&parts.train, &parts.held_out, &parts.test]
            .map(|part| part.garments().indices().to_vec());
        assert_eq!(
            (train.len(), held_out.len(), test.len()),
            (9_000, 1_000, 2_000)
        );
        // Training and held-out garments are of one set and complete it; test garments are of another.
        let mut both = [train, held_out.clone()].concat();
        both.sort_unstable();
        assert_eq!(both, garments.train.indices());
        for class in 0..10 {
            let of_class = held_out.iter();
            let of_class = of_class.filter(|index| garments.train.label(**index as usize) == class);
            assert_eq!(of_class.count(), 100);
        }
        let pictures = |set: &crate::dataset::Dataset| {
            let pictures = (0..set.len()).map(|i| set.image(i).to_vec());
            pictures.collect::<std::collections::HashSet<_>>()
        };
        let (of_train, of_test) = (pictures(&garments.train), pictures(&garments.test));
        assert!(of_train.is_disjoint(&of_test));
    }

    #[test]
    fn the_garments_of_a_part_do_not_depend_on_its_other_parts() {
        let garments = shipped();
        let parts = SceneParts::of(garments.clone()).unwrap();
        let others = Datasets {
            test: garments.train.clone(),
            train: garments.train,
        };
        let same = SceneParts::of(others).unwrap();
        assert_eq!(
            parts.held_out.garments().indices(),
            same.held_out.garments().indices()
        );
        assert_eq!(parts.train.scene(5, None), same.train.scene(5, None));
    }
}
