//! Which class a folder or a label is: decided here, for every format.
//!
//! The first rule that applies decides:
//!
//! 1. a class map states it;
//! 2. the names of the model's classes are known, and each folder has one of them;
//! 3. the data set states names, as Hugging Face's `ClassLabel` does;
//! 4. folders are called by numbers: the number is the class;
//! 5. the order of the folders' names, which must be the same in all parts.
//!
//! What cannot be decided is an error that lists both sides.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use crate::class_map::{Class, class_map, is_negative, number};
use crate::error::{Error, Result};
use crate::formats::options::OpenOptions;
use crate::formats::part_name::PartName;
use crate::formats::store::Listed;

/// The most classes of a data set.
const MOST_CLASSES: usize = 1 << 20;
/// Names that a message lists.
const LISTED: usize = 12;

/// The classes of a data set.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Classes {
    /// Their names, by number.
    pub(crate) names: Vec<String>,
    /// How they were decided, in a sentence.
    pub(crate) how: String,
    /// The number of each label.
    numbers: HashMap<String, u32>,
}

impl Classes {
    /// Decides the classes of what was found at `path`.
    ///
    /// # Errors
    /// If labels cannot be matched with classes, with both listed.
    pub(crate) fn decide(path: &Path, listed: &Listed, options: &OpenOptions) -> Result<Self> {
        let case = Case {
            path,
            listed,
            options,
            labels: labels(listed),
        };
        if let Some(map) = &options.class_map {
            return case.by_map(map);
        }
        case.check_negative()?;
        if !options.class_names.is_empty() {
            return case.by_known_names();
        }
        if !listed.class_names.is_empty() {
            return case.by_stated_names();
        }
        if case.labels.iter().all(|label| number(label).is_some()) {
            return case.by_numbers();
        }
        case.by_order()
    }

    /// Returns the numbers of the labels of a part.
    pub(crate) fn numbers(&self, labels: &[String]) -> Vec<u32> {
        let number = |label: &String| self.numbers.get(label).copied().unwrap_or_default();
        labels.iter().map(number).collect()
    }
}

/// A decision that is being made.
struct Case<'a> {
    path: &'a Path,
    listed: &'a Listed,
    options: &'a OpenOptions,
    /// All labels that pictures have, sorted.
    labels: BTreeSet<&'a str>,
}

impl Case<'_> {
    fn fail(&self, message: impl Into<String>) -> Error {
        Error::data(self.path, message)
    }

    fn carrier(&self) -> &'static str {
        self.listed.carrier
    }

    /// Gives each label the number that `find` returns; `names` holds the classes.
    fn numbered(
        &self,
        names: Vec<String>,
        how: &str,
        find: impl Fn(&str) -> Option<u32>,
    ) -> Result<Classes, Vec<String>> {
        let mut numbers = HashMap::new();
        let mut unknown = Vec::new();
        for label in &self.labels {
            match find(label).filter(|number| (*number as usize) < names.len()) {
                Some(number) => {
                    numbers.insert((*label).to_owned(), number);
                }
                None => unknown.push((*label).to_owned()),
            }
        }
        if unknown.is_empty() {
            let how = format!("classes: {how}");
            Ok(Classes {
                names,
                how,
                numbers,
            })
        } else {
            Err(unknown)
        }
    }

    fn by_map(&self, file: &Path) -> Result<Classes> {
        let map = class_map(file)?;
        let names = self.names_of_map(file, &map)?;
        let place = |name: &str| names.iter().position(|known| known == name);
        let find = |label: &str| match map.get(label)? {
            Class::Number(number) => Some(*number),
            Class::Name(name) => place(name).map(|number| number as u32),
        };
        let carrier = self.carrier();
        let how = format!(
            "{} {carrier} by the class map {}",
            self.labels.len(),
            file.display()
        );
        self.numbered(names.clone(), &how, find).map_err(|unknown| {
            self.fail(format!(
                "the class map {} gives no class of {} to these {carrier}: {}; add them",
                file.display(),
                names.len(),
                list(&unknown)
            ))
        })
    }

    /// The names of the classes that a map leads to.
    fn names_of_map(&self, file: &Path, map: &BTreeMap<String, Class>) -> Result<Vec<String>> {
        for known in [&self.options.class_names, &self.listed.class_names] {
            if !known.is_empty() {
                return Ok(known.clone());
            }
        }
        let mut by_number: BTreeMap<u32, Vec<&str>> = BTreeMap::new();
        let mut names = BTreeSet::new();
        for (label, class) in map {
            match class {
                Class::Number(number) => by_number.entry(*number).or_default().push(label),
                Class::Name(name) => {
                    names.insert(name.clone());
                }
            }
        }
        if !by_number.is_empty() && !names.is_empty() {
            return Err(Error::data(
                file,
                "expected numbers or names of classes, found both; the model has no names to match",
            ));
        }
        if by_number.is_empty() {
            self.check_number(names.len())?;
            return Ok(names.into_iter().collect());
        }
        let most = by_number.keys().next_back().map_or(0, |n| *n as usize + 1);
        let n = self.options.num_classes.unwrap_or(most);
        if n > MOST_CLASSES {
            return Err(Error::data(
                file,
                format!("expected at most {MOST_CLASSES} classes, found {n}"),
            ));
        }
        let name = |number: u32| match by_number.get(&number) {
            Some(labels) => labels.join(", "),
            None => number.to_string(),
        };
        Ok((0..n as u32).map(name).collect())
    }

    fn by_known_names(&self) -> Result<Classes> {
        let known = &self.options.class_names;
        if let Some(n) = self.options.num_classes.filter(|n| *n != known.len()) {
            return Err(Error::Setting(format!(
                "class_names: expected the names of {n} classes, found {}",
                known.len()
            )));
        }
        // The data set numbers the same classes: their numbers decide, also of two with one name.
        let same = self.listed.class_names == *known;
        let numbered = || self.labels.iter().all(|label| number(label).is_some());
        if let Some(name) = twice(known).filter(|_| !same) {
            if !self.has_stated_names() && numbered() {
                return self.by_numbers();
            }
            return Err(self.fail(format!(
                "two classes of the model are called {name:?}, so names cannot tell them apart; set \
                 class_map to a file of folder,number"
            )));
        }
        let place = |name: &str| known.iter().position(|class| class == name);
        let find = |label: &str| match number(label).filter(|_| same) {
            Some(number) => Some(number),
            None => place(self.stated(label)).map(|number| number as u32),
        };
        let carrier = self.carrier();
        let how = format!(
            "{} {carrier} by the names of the {} classes",
            self.labels.len(),
            known.len()
        );
        let by_name = self.numbered(known.clone(), &how, find);
        let unknown = match by_name {
            Ok(classes) => return Ok(classes),
            Err(unknown) => unknown,
        };
        if !self.has_stated_names() && numbered() {
            return self.by_numbers();
        }
        Err(self.fail(format!(
            "{} of {} {carrier} are no classes of the model: {}; its classes are {}; rename them, or \
             set class_map to a file of folder,class",
            unknown.len(),
            self.labels.len(),
            list(&unknown.iter().map(|label| self.stated(label).to_owned()).collect::<Vec<_>>()),
            list(known)
        )))
    }

    /// Whether the data set states names that are not just its numbers.
    fn has_stated_names(&self) -> bool {
        let mut names = (0_u32..).zip(&self.listed.class_names);
        names.any(|(i, name)| number(name) != Some(i))
    }

    /// The name that the data set states for a label.
    fn stated<'l>(&'l self, label: &'l str) -> &'l str {
        let names = &self.listed.class_names;
        let name = number(label).and_then(|number| names.get(number as usize));
        name.map_or(label, String::as_str)
    }

    fn by_stated_names(&self) -> Result<Classes> {
        let names = &self.listed.class_names;
        self.check_number(names.len())?;
        let find = |label: &str| {
            let place = || {
                names
                    .iter()
                    .position(|name| name == label)
                    .map(|i| i as u32)
            };
            number(label).or_else(place)
        };
        let how = format!("{} by the names that the data set states", names.len());
        self.numbered(names.clone(), &how, find).map_err(|unknown| {
            self.fail(format!(
                "labels that are none of the {} classes that the data set states: {}; the classes are {}",
                names.len(),
                list(&unknown),
                list(names)
            ))
        })
    }

    /// Fails if a label is a negative number, as a mark for no label is.
    fn check_negative(&self) -> Result<()> {
        let Some(label) = self.labels.iter().find(|label| is_negative(label)) else {
            return Ok(());
        };
        if !self.labels.iter().any(|label| number(label).is_some()) {
            return Ok(());
        }
        Err(self.fail(format!(
            "expected {} from 0 on, found {label}; leave out pictures without a class",
            self.carrier()
        )))
    }

    /// Fails if a part other than the first has numbers that the first lacks.
    fn check_numbers_of_parts(&self) -> Result<()> {
        let Some((first, others)) = self.listed.parts.split_first() else {
            return Ok(());
        };
        let known: BTreeSet<Option<u32>> = first.classes.iter().map(|l| number(l)).collect();
        for other in others {
            let more = other.classes.iter().filter(|l| !known.contains(&number(l)));
            let more: Vec<String> = more.cloned().collect();
            if let (false, Some(first), Some(part)) = (more.is_empty(), first.part, other.part) {
                return Err(self.fail(format!(
                    "classes differ between {first} and {part}: only in {part}: {}; make them the same, or \
                     set class_map to a file of folder,class",
                    list(&more)
                )));
            }
        }
        Ok(())
    }

    /// The number in a name is the class.
    fn by_numbers(&self) -> Result<Classes> {
        if self.options.num_classes.is_none() && self.options.class_names.is_empty() {
            self.check_numbers_of_parts()?;
        }
        let carrier = self.carrier();
        let mut labels: BTreeMap<u32, &str> = BTreeMap::new();
        for label in &self.labels {
            let number = number(label).unwrap_or_default();
            if let Some(other) = labels.insert(number, label) {
                return Err(self.fail(format!(
                    "{carrier} {other:?} and {label:?} are the same number; rename one"
                )));
            }
        }
        let most = labels.keys().next_back().copied().unwrap_or(0) as usize;
        let known = &self.options.class_names;
        let named = (!known.is_empty()).then_some(known.len());
        let n = self.options.num_classes.or(named);
        if let Some(n) = n.filter(|n| most >= *n) {
            return Err(self.fail(format!(
                "{carrier} are numbers, which are classes: expected 0 to {} for {n} classes, found {most}; \
                 rename them, or set class_map to a file of folder,class",
                n.saturating_sub(1)
            )));
        }
        if n.is_none() && labels.len() != most + 1 {
            let found: Vec<String> = labels.keys().map(u32::to_string).collect();
            return Err(self.fail(format!(
                "{carrier} are numbers, which are classes: expected every number from 0 to {most}, found {}; \
                 set num_classes, or set class_map to a file of folder,class",
                list(&found)
            )));
        }
        let n = n.unwrap_or(most + 1);
        if n > MOST_CLASSES {
            return Err(self.fail(format!(
                "expected at most {MOST_CLASSES} classes, found {n}"
            )));
        }
        let names = if known.is_empty() {
            (0..n).map(|number| number.to_string()).collect()
        } else {
            known.clone()
        };
        let noun = if carrier == "folders" {
            "folder names"
        } else {
            "labels"
        };
        let range = match (labels.keys().next(), labels.keys().next_back()) {
            (Some(first), Some(last)) => format!("{first}..{last}"),
            _ => String::new(),
        };
        let share = if labels.len() == n {
            String::new()
        } else {
            format!(", {} of {n}", labels.len())
        };
        self.numbered(names, &format!("{noun} are numbers {range}{share}"), number)
            .map_err(|unknown| self.fail(format!("labels above the classes: {}", list(&unknown))))
    }

    /// The order of the names.
    fn by_order(&self) -> Result<Classes> {
        self.check_parts()?;
        self.check_number(self.labels.len())?;
        let names: Vec<String> = self.labels.iter().map(|&label| label.to_owned()).collect();
        let places: HashMap<&str, u32> = self.labels.iter().copied().zip(0..).collect();
        let how = format!("{} {} by name", names.len(), self.carrier());
        self.numbered(names, &how, |label| places.get(label).copied())
            .map_err(|unknown| self.fail(format!("labels without a class: {}", list(&unknown))))
    }

    /// Without names, all classes of the model have to be there.
    fn check_number(&self, found: usize) -> Result<()> {
        if found > MOST_CLASSES {
            return Err(self.fail(format!(
                "expected at most {MOST_CLASSES} classes, found {found}"
            )));
        }
        let Some(n) = self.options.num_classes.filter(|n| *n != found) else {
            return Ok(());
        };
        let labels: Vec<String> = self.labels.iter().map(|&label| label.to_owned()).collect();
        Err(self.fail(format!(
            "{found} classes by their {} ({}), but the model has {n} classes without names (0 to {}), so \
             which is which cannot be known; set class_map to a file of folder,class",
            self.carrier(),
            list(&labels),
            n.saturating_sub(1)
        )))
    }

    /// All parts have the same classes; an empty folder is enough.
    fn check_parts(&self) -> Result<()> {
        let mut parts = self.listed.parts.iter();
        let Some(first) = parts.next() else {
            return Ok(());
        };
        let with_pictures: BTreeSet<&str> = first.classes.iter().map(String::as_str).collect();
        for other in parts {
            let name = |part: Option<PartName>| part.map_or("the data", PartName::name);
            let found: BTreeSet<&str> = other.classes.iter().map(String::as_str).collect();
            let empty: BTreeSet<&str> = other.empty_classes.iter().map(String::as_str).collect();
            let lacking = with_pictures
                .difference(&found)
                .filter(|label| !empty.contains(**label));
            let lacking: Vec<String> = lacking.map(|&label| label.to_owned()).collect();
            let more = found.difference(&with_pictures);
            let more: Vec<String> = more.map(|&label| label.to_owned()).collect();
            if !lacking.is_empty() || !more.is_empty() {
                let (first, other) = (name(first.part), name(other.part));
                return Err(self.fail(format!(
                    "classes differ between {first} and {other}: only in {first}: {}; only in {other}: {}; \
                     make the folders the same, or set class_map to a file of folder,class",
                    list(&lacking),
                    list(&more)
                )));
            }
        }
        Ok(())
    }
}

/// A name that occurs twice.
fn twice(names: &[String]) -> Option<&str> {
    let mut seen = BTreeSet::new();
    let name = names.iter().find(|name| !seen.insert(name.as_str()));
    name.map(String::as_str)
}

/// All labels that pictures have.
fn labels(listed: &Listed) -> BTreeSet<&str> {
    let parts = listed.parts.iter();
    parts
        .flat_map(|part| part.classes.iter().map(String::as_str))
        .collect()
}

/// Some names, and how many there are.
fn list(names: &[String]) -> String {
    if names.is_empty() {
        return "none".into();
    }
    let some: Vec<&str> = names.iter().take(LISTED).map(String::as_str).collect();
    match names.len() {
        n if n > LISTED => format!("{}, ... ({n} in all)", some.join(", ")),
        _ => some.join(", "),
    }
}
