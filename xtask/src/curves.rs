//! Puts what `cargo bench --bench efficiency` and `adavit sweep` wrote into the docs.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::command::{tell, workspace};

const PAGE: &str = "docs/efficiency.md";
const IMAGES: &str = "docs/images/efficiency";
/// The part of the page that has the bench's table.
const CURVE: &str = "curve";
/// Those that have a sweep's tables, by the headings of these in `efficiency.md`.
const SWEEP: [&str; 4] = ["models", "comparisons", "seeds", "variants"];

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

/// The bench's curve, under the folder of the build.
pub(crate) fn refresh_bench(target: &Path) -> Result<()> {
    let measured = target.join("efficiency");
    let json = measured.join("efficiency.json");
    let bytes = fs::read(&json).with_context(|| {
        let json = json.display();
        format!("{json}: run `cargo bench --bench efficiency` first")
    })?;
    let curve: Curve =
        serde_json::from_slice(&bytes).with_context(|| json.display().to_string())?;
    let root = workspace()?;
    copy(
        &measured.join("efficiency.svg"),
        &root.join(IMAGES).join("bench.svg"),
    )?;
    replace(&root.join(PAGE), &[(CURVE.into(), table(&curve)?)])?;
    tell(&format!("written: {PAGE}, {IMAGES}/bench.svg"));
    Ok(())
}

/// The points that `efficiency.json` of a sweep has.
#[derive(Debug, Deserialize)]
struct Sweep {
    points: Vec<SweepPoint>,
}

#[derive(Debug, Deserialize)]
struct SweepPoint {
    name: String,
}

/// The tables, the files and the points of a sweep's folder, in place of those of another.
pub(crate) fn refresh_sweep(sweep: &Path) -> Result<()> {
    copy_sweep(sweep, &workspace()?)?;
    tell(&format!(
        "written: {PAGE}, {IMAGES}/sweep.*, {IMAGES}/points"
    ));
    Ok(())
}

fn copy_sweep(sweep: &Path, root: &Path) -> Result<()> {
    let tables = sweep.join("efficiency.md");
    let expected = || {
        let tables = tables.display();
        format!("{tables}: expected the tables of an `adavit sweep`")
    };
    let text = fs::read_to_string(&tables).with_context(expected)?;
    let found = sections(&text);
    if found.is_empty() {
        bail!(expected());
    }
    let images = root.join(IMAGES);
    let kept = images.join("points");
    // Whatever may be missing is looked for before anything is written.
    let json = sweep.join("efficiency.json");
    let named = || json.display().to_string();
    let bytes = fs::read(&json).with_context(named)?;
    let measured: Sweep = serde_json::from_slice(&bytes).with_context(named)?;
    let names = measured.points.iter().map(|p| format!("{}.json", p.name));
    let names: Vec<String> = names.collect();
    let of_sweep = |kind: &str| sweep.join("efficiency").with_extension(kind);
    let pages = ["csv", "json", "svg"].map(|kind| {
        let to = images.join("sweep").with_extension(kind);
        (of_sweep(kind), to)
    });
    let points = names.iter().map(|name| {
        let from = sweep.join("points").join(name);
        (from, kept.join(name))
    });
    let copies: Vec<(PathBuf, PathBuf)> = pages.into_iter().chain(points).collect();
    if let Some((missing, _)) = copies.iter().find(|(from, _)| !from.is_file()) {
        bail!("{}: expected what a sweep writes", missing.display());
    }
    fs::create_dir_all(&kept).with_context(|| kept.display().to_string())?;
    replace(&root.join(PAGE), &parts(&found))?;
    for (from, to) in &copies {
        copy(from, to)?;
    }
    for old in files(&kept)? {
        let of_this = |name: &String| old.file_name().is_some_and(|file| file == name.as_str());
        if !names.iter().any(of_this) {
            fs::remove_file(&old).with_context(|| old.display().to_string())?;
        }
    }
    Ok(())
}

/// The parts of the page that a sweep has; one without a table says so.
fn parts(found: &[(String, String)]) -> Vec<(String, String)> {
    let of = |part: &str| {
        let section = found.iter().find(|(title, _)| title == part);
        section.map_or_else(|| "Not measured yet.\n".into(), |(_, text)| text.clone())
    };
    SWEEP.map(|part| (part.to_string(), of(part))).into()
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let paths: std::io::Result<Vec<PathBuf>> = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect();
    paths.with_context(|| folder.display().to_string())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    let paths = || format!("{} to {}", from.display(), to.display());
    fs::copy(from, to).with_context(paths)?;
    Ok(())
}

/// The text under each heading of the second level, by the heading in small letters.
fn sections(text: &str) -> Vec<(String, String)> {
    let parts = text.split("\n## ").skip(1);
    let parts = parts.filter_map(|part| part.split_once('\n'));
    parts
        .map(|(title, text)| (title.to_lowercase(), format!("{}\n", text.trim())))
        .collect()
}

/// Writes the page again with other texts in its parts.
fn replace(page: &Path, parts: &[(String, String)]) -> Result<()> {
    let path = page.display().to_string();
    let mut text = fs::read_to_string(page).with_context(|| path.clone())?;
    for (part, new) in parts {
        text = replaced(&text, part, new)?;
    }
    fs::write(page, text).context(path)
}

/// The page with other text between the marks of a part.
fn replaced(page: &str, part: &str, text: &str) -> Result<String> {
    let [begin, end] = ["begin", "end"].map(|mark| format!("<!-- {part}: {mark} -->"));
    let parts = page.split_once(&begin);
    let Some((before, (_, after))) =
        parts.and_then(|(before, rest)| Some((before, rest.split_once(&end)?)))
    else {
        bail!("{PAGE}: expected the lines {begin} and {end}");
    };
    Ok(format!("{before}{begin}\n\n{text}\n{end}{after}"))
}

fn table(curve: &Curve) -> Result<String> {
    let dense = curve.rows.iter().find(|row| row.budget.is_none());
    let dense = dense.context("efficiency.json: expected a row of the dense model")?;
    let threads = if curve.threads == 1 {
        "thread"
    } else {
        "threads"
    };
    let mut lines = vec![
        format!(
            "{}, {} {}, {} kernels; {} test images; commit `{}`.",
            curve.cpu, curve.threads, threads, curve.simd, curve.test_images, curve.commit
        ),
        String::new(),
        "| model | top-1 | MACs per image | MACs saved | ms, batch 1 | time saved | ms, batch 32 | time saved |".into(),
        "| --- | --- | --- | --- | --- | --- | --- | --- |".into(),
    ];
    lines.extend(curve.rows.iter().map(|row| {
        let name = row
            .budget
            .map_or_else(|| "dense".into(), |budget| format!("budget {budget}"));
        format!(
            "| {name} | {:.4} | {:.2} M | {:.2} | {:.3} | {:.2} | {:.3} | {:.2} |",
            row.top1,
            row.macs / 1e6,
            row.macs_saved,
            row.ms_batch_1,
            dense.ms_batch_1 / row.ms_batch_1,
            row.ms_batch_32,
            dense.ms_batch_32 / row.ms_batch_32,
        )
    }));
    Ok(lines.join("\n") + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_lies_between_the_marks_is_replaced() {
        let page = |text: &str| {
            let other = "<!-- other: begin -->\nleft\n<!-- other: end -->";
            format!("{other}\n<!-- a: begin -->\n{text}\n<!-- a: end -->\nafter\n")
        };
        let found = replaced(&page("old"), "a", "new\n").unwrap();
        assert_eq!(found, page("\nnew\n"));
        assert!(replaced("before", "a", "new").is_err());
    }

    #[test]
    fn a_sweep_has_a_section_for_each_table() {
        let found = sections("# Efficiency\n\n## Models\n\n| a |\n\n## Seeds\n\n| b |\n");
        let expected = [("models", "| a |\n"), ("seeds", "| b |\n")];
        assert_eq!(
            found,
            expected.map(|(title, text)| (title.into(), text.into()))
        );
        let [models, comparisons, seeds, variants] = parts(&found).try_into().unwrap();
        assert_eq!(
            (models.1.as_str(), seeds.1.as_str()),
            ("| a |\n", "| b |\n")
        );
        assert_eq!(comparisons.1, variants.1);
    }

    #[test]
    fn the_points_of_the_docs_are_those_of_the_tables() {
        let folder = tempfile::tempdir().unwrap();
        let (sweep, root) = (folder.path().join("sweep"), folder.path().join("root"));
        let write = |path: &Path, text: &str| {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let marked = |text: &str| {
            SWEEP.map(|part| format!("<!-- {part}: begin -->{text}<!-- {part}: end -->\n"))
        };
        let page = marked("old").concat();
        write(&root.join(PAGE), &page);
        let kept = root.join(IMAGES).join("points");
        write(&kept.join("gone.json"), "{}");
        let tables = "# Efficiency\n\n## Models\n\nnew\n";
        for (name, text) in [
            ("efficiency.md", tables),
            ("efficiency.json", "{\"points\": [{\"name\": \"a\"}]}"),
            ("efficiency.csv", "name\n"),
            ("points/a.json", "{}"),
            ("points/b.json", "{}"),
        ] {
            write(&sweep.join(name), text);
        }
        // Without the chart nothing is changed.
        let error = copy_sweep(&sweep, &root).unwrap_err().to_string();
        assert!(error.contains("efficiency.svg"), "{error}");
        assert_eq!(fs::read_to_string(root.join(PAGE)).unwrap(), page);
        assert!(kept.join("gone.json").exists());

        write(&sweep.join("efficiency.svg"), "<svg/>");
        copy_sweep(&sweep, &root).unwrap();
        let found = fs::read_to_string(root.join(PAGE)).unwrap();
        assert!(found.contains("new") && !found.contains("old"), "{found}");
        let points = files(&kept).unwrap();
        assert_eq!(points, [kept.join("a.json")]);
        assert!(root.join(IMAGES).join("sweep.svg").exists());
    }

    #[test]
    fn the_page_has_every_part() {
        let page = fs::read_to_string(workspace().unwrap().join(PAGE)).unwrap();
        for part in SWEEP.into_iter().chain([CURVE]) {
            replaced(&page, part, "").unwrap();
        }
    }

    #[test]
    fn savings_are_against_the_dense_model() {
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
        assert!(text.contains("| dense | 0.9000 |"));
        assert!(text.starts_with("cpu, 2 threads, avx2 kernels; 5 test images; commit `abc`."));
        assert!(text.contains("| budget 0.5 | 0.9000 | 10.00 M | 2.00 | 2.000 | 1.50 |"));
    }
}
