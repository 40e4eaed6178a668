//! Puts what `cargo bench --bench efficiency` wrote into the docs.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::{tell, workspace};

/// What lies between these lines of the page is replaced.
const MARKS: [&str; 2] = ["<!-- curve: begin -->", "<!-- curve: end -->"];
const PAGE: &str = "docs/efficiency.md";
const PICTURE: &str = "docs/images/efficiency/bench.svg";

/// The fields of `efficiency.json` that the table has.
#[derive(Debug, Deserialize)]
struct Curve {
    test_images: usize,
    commit: String,
    cpu: String,
    threads: usize,
    simd: String,
    rows: Vec<Row>,
}

#[derive(Debug, Deserialize)]
struct Row {
    budget: Option<f64>,
    top1: f64,
    macs: f64,
    macs_saved: f64,
    ms_batch_1: f64,
    ms_batch_32: f64,
}

pub(crate) fn refresh(target: &Path) -> Result<()> {
    let measured = target.join("efficiency");
    let json = measured.join("efficiency.json");
    let bytes = fs::read(&json).with_context(|| {
        let json = json.display();
        format!("{json}: run `cargo bench --bench efficiency` first")
    })?;
    let curve: Curve =
        serde_json::from_slice(&bytes).with_context(|| json.display().to_string())?;
    let root = workspace()?;
    let page = root.join(PAGE);
    let text = fs::read_to_string(&page).with_context(|| page.display().to_string())?;
    let text = replaced(&text, &table(&curve)?)?;
    fs::write(&page, text).with_context(|| page.display().to_string())?;
    let picture = root.join(PICTURE);
    fs::copy(measured.join("efficiency.svg"), &picture)
        .with_context(|| picture.display().to_string())?;
    tell(&format!("written: {PAGE}, {PICTURE}"));
    Ok(())
}

/// The page with other text between its marks.
fn replaced(page: &str, text: &str) -> Result<String> {
    let [begin, end] = MARKS;
    let parts = page.split_once(begin);
    let Some((before, (_, after))) =
        parts.and_then(|(before, rest)| Some((before, rest.split_once(end)?)))
    else {
        bail!("{PAGE}: expected the lines {begin} and {end}");
    };
    Ok(format!("{before}{begin}\n\n{text}\n{end}{after}"))
}

fn table(curve: &Curve) -> Result<String> {
    let plain = curve.rows.iter().find(|row| row.budget.is_none());
    let plain = plain.context("efficiency.json: expected a row of the plain model")?;
    let mut lines = vec![
        format!(
            "{}, {} threads, {} kernels; {} test images; commit `{}`.",
            curve.cpu, curve.threads, curve.simd, curve.test_images, curve.commit
        ),
        String::new(),
        "| model | top-1 | MACs per image | MACs saved | ms, batch 1 | time saved | ms, batch 32 | time saved |".into(),
        "| --- | --- | --- | --- | --- | --- | --- | --- |".into(),
    ];
    lines.extend(curve.rows.iter().map(|row| {
        let name = row
            .budget
            .map_or_else(|| "plain".into(), |budget| format!("budget {budget}"));
        format!(
            "| {name} | {:.4} | {:.2} M | {:.2} | {:.3} | {:.2} | {:.3} | {:.2} |",
            row.top1,
            row.macs / 1e6,
            row.macs_saved,
            row.ms_batch_1,
            plain.ms_batch_1 / row.ms_batch_1,
            row.ms_batch_32,
            plain.ms_batch_32 / row.ms_batch_32,
        )
    }));
    Ok(lines.join("\n") + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_between_the_marks_is_replaced() {
        let [begin, end] = MARKS;
        let page = format!("before\n{begin}\nold\n{end}\nafter\n");
        let expected = format!("before\n{begin}\n\nnew\n\n{end}\nafter\n");
        assert_eq!(replaced(&page, "new\n").unwrap(), expected);
        assert!(replaced("before", "new").is_err());
    }

    #[test]
    fn savings_are_against_the_plain_model() {
        let row = |budget, ms| Row {
            budget,
            top1: 0.9,
            macs: 1e7,
            macs_saved: 2.0,
            ms_batch_1: ms,
            ms_batch_32: ms,
        };
        let curve = Curve {
            test_images: 5,
            commit: "abc".into(),
            cpu: "cpu".into(),
            threads: 2,
            simd: "avx2".into(),
            rows: vec![row(None, 3.0), row(Some(0.5), 2.0)],
        };
        let text = table(&curve).unwrap();
        assert!(text.starts_with("cpu, 2 threads, avx2 kernels; 5 test images; commit `abc`."));
        assert!(text.contains("| budget 0.5 | 0.9000 | 10.00 M | 2.00 | 2.000 | 1.50 |"));
    }
}
