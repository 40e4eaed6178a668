//! What a data set holds: counts, sizes, channels, broken pictures, and pictures that occur in two parts.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use rayon::prelude::*;
use serde::Serialize;

use crate::formats::open::Found;
use crate::formats::picture_set::PictureSet;

/// Examples that are kept of broken and of double pictures.
const EXAMPLES: usize = 10;

/// What the parts of a data set hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Survey {
    /// Each part, in the order train, val, test.
    pub parts: Vec<PartSurvey>,
    /// Files that occur in two parts, or twice in one, byte for byte.
    pub duplicates: Vec<Duplicates>,
}

/// What one part holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PartSurvey {
    /// Its name, as in `train`.
    pub part: String,
    /// How many pictures.
    pub pictures: usize,
    /// How many of each class, by number.
    pub per_class: Vec<usize>,
    /// Pictures without colours, however they are stored.
    pub grey: usize,
    /// Pictures with colours.
    pub colours: usize,
    /// Height and width of the picture with the fewest pixels, of the median, and of that with the most.
    pub sizes: Option<[(usize, usize); 3]>,
    /// Pictures that cannot be decoded.
    pub broken: usize,
    /// The first of them, with the reason.
    pub broken_examples: Vec<String>,
}

/// Files that are the same in two parts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Duplicates {
    /// Names of the two parts; the same for duplicates within one.
    pub parts: (String, String),
    /// How many pictures of the second part are in the first one too, or earlier in it.
    pub count: usize,
    /// How many of them have another label there.
    pub other_label: usize,
    /// The first of them: the place in the first part, and in the second.
    pub examples: Vec<(String, String)>,
}

/// One picture, as it was found.
struct Looked {
    hash: u64,
    size: Option<(usize, usize)>,
    grey: bool,
    broken: Option<String>,
}

impl Found {
    /// Reads and decodes every picture, in parallel, and returns what the parts hold.
    pub fn survey(&self) -> Survey {
        let named = [
            ("train", &self.train),
            ("val", &self.val),
            ("test", &self.test),
            ("all", &self.whole),
        ];
        let parts: Vec<Part> = named
            .into_iter()
            .filter_map(|(name, set)| Some(Part::looked_at(name, set.as_ref()?)))
            .collect();
        let pairs = (0..parts.len()).flat_map(|a| (a..parts.len()).map(move |b| (a, b)));
        let duplicates = pairs.filter_map(|(a, b)| duplicates(&parts[a], &parts[b], a == b));
        Survey {
            duplicates: duplicates.collect(),
            parts: parts.iter().map(Part::survey).collect(),
        }
    }
}

struct Part<'a> {
    name: &'static str,
    set: &'a PictureSet,
    looked: Vec<Looked>,
}

impl<'a> Part<'a> {
    fn looked_at(name: &'static str, set: &'a PictureSet) -> Self {
        let looked = (0..set.len()).into_par_iter().map(|i| look(set, i));
        let looked = looked.collect();
        Self { name, set, looked }
    }

    fn survey(&self) -> PartSurvey {
        let mut per_class = vec![0; self.set.class_names().len()];
        for &label in self.set.labels() {
            per_class[label as usize] += 1;
        }
        let mut sizes: Vec<_> = self.looked.iter().filter_map(|one| one.size).collect();
        sizes.sort_unstable_by_key(|&(height, width)| (height * width, height));
        let [whole, grey] = [
            sizes.len(),
            self.looked
                .iter()
                .filter(|one| one.size.is_some() && one.grey)
                .count(),
        ];
        let broken = self.looked.iter().filter_map(|one| one.broken.clone());
        PartSurvey {
            part: self.name.into(),
            pictures: self.looked.len(),
            per_class,
            grey,
            colours: whole - grey,
            sizes: (whole > 0).then(|| [sizes[0], sizes[whole / 2], sizes[whole - 1]]),
            broken: self.looked.len() - whole,
            broken_examples: broken.take(EXAMPLES).collect(),
        }
    }
}

fn look(set: &PictureSet, i: usize) -> Looked {
    // A file that cannot be read is a duplicate of nothing.
    let mut hasher = DefaultHasher::new();
    match set.identity(i) {
        Ok(bytes) => bytes.hash(&mut hasher),
        Err(_) => (i, set.place(i)).hash(&mut hasher),
    }
    let hash = hasher.finish();
    match set.picture(i, 3) {
        Ok(picture) => Looked {
            hash,
            size: Some(picture.size()),
            grey: picture.is_grey(),
            broken: None,
        },
        Err(error) => Looked {
            hash,
            size: None,
            grey: false,
            broken: Some(error.to_string()),
        },
    }
}

/// The pictures of `b` that are in `a` too; within one part, those that are there before.
fn duplicates(a: &Part, b: &Part, same: bool) -> Option<Duplicates> {
    let mut first: HashMap<u64, usize> = HashMap::new();
    let mut found = Duplicates {
        parts: (a.name.into(), b.name.into()),
        count: 0,
        other_label: 0,
        examples: Vec::new(),
    };
    if !same {
        for (i, one) in a.looked.iter().enumerate() {
            first.entry(one.hash).or_insert(i);
        }
    }
    for (i, one) in b.looked.iter().enumerate() {
        if let Some(&earlier) = first.get(&one.hash) {
            found.count += 1;
            found.other_label += usize::from(a.set.label(earlier) != b.set.label(i));
            if found.examples.len() < EXAMPLES {
                found.examples.push((a.set.place(earlier), b.set.place(i)));
            }
        } else if same {
            first.insert(one.hash, i);
        }
    }
    (found.count > 0).then_some(found)
}
