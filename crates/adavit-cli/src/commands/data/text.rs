//! What is found, for people.

use std::path::Path;

use adavit_data::{Found, Survey};

/// Classes of a table: those with the most images, and how many are left.
const LISTED: usize = 30;

pub(super) fn text(path: &Path, found: &Found, survey: &Survey) -> String {
    let mut lines = vec![
        format!("{}: {}", path.display(), found.format),
        found.classes.clone(),
    ];
    for part in &survey.parts {
        let sizes = part.sizes.map_or_else(String::new, |sizes| {
            let [least, median, most] = sizes.map(|(height, width)| format!("{width}x{height}"));
            format!(", {least} to {most} pixels (half below {median})")
        });
        let colours = match (part.grey, part.colours) {
            (_, 0) => "grey".to_owned(),
            (0, _) => "in colours".to_owned(),
            (grey, colours) => format!("{colours} in colours, {grey} grey"),
        };
        lines.push(format!(
            "{}: {} pictures, {colours}{sizes}",
            part.part, part.pictures
        ));
        if part.broken > 0 {
            lines.push(format!("  {} broken:", part.broken));
            lines.extend(part.broken_examples.iter().map(|one| format!("    {one}")));
        }
    }
    lines.extend(counts(found, survey));
    for double in &survey.duplicates {
        let (a, b) = &double.parts;
        lines.push(format!(
            "{} pictures of {b} are {} {a} too, {} of them with another label:",
            double.count,
            if a == b { "earlier in" } else { "in" },
            double.other_label
        ));
        lines.extend(
            double
                .examples
                .iter()
                .map(|(a, b)| format!("    {b} is {a}")),
        );
    }
    if !found.left_out.is_empty() {
        lines.push("left out:".into());
        lines.extend(
            found
                .left_out
                .to_string()
                .lines()
                .map(|line| format!("  {line}")),
        );
    }
    lines.join("\n")
}

/// How many pictures each class has in each part.
fn counts(found: &Found, survey: &Survey) -> Vec<String> {
    let names = &found.class_names;
    let width = names.iter().take(LISTED).map(|name| name.chars().count());
    let width = width.max().unwrap_or(0).max(5);
    let header = survey.parts.iter().map(|part| format!("{:>9}", part.part));
    let mut lines = vec![format!("{:<width$}{}", "class", header.collect::<String>())];
    for (class, name) in names.iter().enumerate().take(LISTED) {
        let row = survey.parts.iter();
        let row = row.map(|part| format!("{:>9}", part.per_class.get(class).unwrap_or(&0)));
        lines.push(format!("{name:<width$}{}", row.collect::<String>()));
    }
    if names.len() > LISTED {
        lines.push(format!("and {} more classes", names.len() - LISTED));
    }
    lines
}
