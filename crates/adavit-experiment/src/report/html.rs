//! The page: one file, no network, for light and dark, wide and narrow.

use std::fmt::Write;

use crate::report::chart::figure::Figure;
use crate::report::markup::escape;

/// A page that grows section by section.
#[derive(Debug)]
pub(super) struct Page {
    body: String,
}

const STYLE: &str = "\
:root{color-scheme:light dark;--soft:#8885;--wrong:#b3261e}\
@media(prefers-color-scheme:dark){:root{--wrong:#ff9a8f}}\
body{font:16px/1.5 system-ui,sans-serif;margin:0 auto;max-width:1100px;padding:1rem}\
h1{font-size:1.5rem}h2{font-size:1.2rem;margin:2.2rem 0 .5rem}h3{font-size:1rem;margin:1.2rem 0 .4rem}\
p{margin:.4rem 0;max-width:46rem}\
figure{margin:0;min-width:0}figcaption{font-size:.9rem}\
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,420px),1fr));gap:1.6rem 1.2rem}\
.charts figure{max-width:560px}.charts figcaption{font-weight:600}\
.chart svg{width:100%;height:auto;display:block}\
.legend{display:flex;flex-wrap:wrap;gap:.1rem 1.1rem;font-size:.85rem;margin:.2rem 0;padding:0;list-style:none}\
.legend li{display:flex;align-items:center}\
.legend svg{width:2.3em;height:1em;flex:none;margin-right:.4em}\
.legend i{width:.9em;height:.9em;margin-right:.4em;border-radius:2px}\
.scroll{overflow-x:auto;margin:.4rem 0 .8rem}\
table{border-collapse:collapse;font-size:.9rem}\
th,td{padding:.25rem .6rem;text-align:right;white-space:nowrap;border-bottom:1px solid var(--soft)}\
th:first-child{text-align:left;position:sticky;left:0;background:Canvas}\
th{font-weight:600}tbody th{font-weight:400}\
table.words td{text-align:left;white-space:normal;min-width:9rem;overflow-wrap:anywhere}table.words th{text-align:left;vertical-align:top}\
td.heat{min-width:2.2rem;text-align:center}\
@media(max-width:600px){th.long{white-space:normal;min-width:8rem}}\
.gallery{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,320px),1fr));gap:1.2rem 1rem;align-items:start}\
.gallery.small{grid-template-columns:repeat(auto-fill,minmax(min(45%,150px),1fr))}\
.gallery img{width:100%;image-rendering:pixelated;border-radius:4px;display:block;margin-bottom:.2rem}\
.wrong{color:var(--wrong);font-weight:600}\
pre{overflow-x:auto;font-size:.85rem;border:1px solid var(--soft);border-radius:4px;padding:.6rem}\
summary{cursor:pointer}";

/// A row's name of more letters than this is divided into lines on a narrow screen.
const LONG: usize = 16;

/// A table with a head; the first column names the rows.
#[derive(Debug, Clone)]
pub(super) struct Table {
    pub(super) head: Vec<String>,
    pub(super) rows: Vec<Vec<Cell>>,
    pub(super) kind: TableKind,
}

/// What the cells of a table hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TableKind {
    Numbers,
    Words,
}

/// A picture of a gallery.
#[derive(Debug, Clone)]
pub(super) struct Picture {
    /// A PNG file's bytes.
    pub(super) png: Vec<u8>,
    pub(super) label: String,
    /// What the model predicted, with its probability.
    pub(super) predicted: String,
    pub(super) correct: bool,
    /// What else there is to say.
    pub(super) detail: String,
}

/// How large the pictures of a gallery are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum PictureSize {
    Small,
    Large,
}

impl Page {
    pub(super) fn new(title: &str) -> Self {
        let mut page = Self {
            body: String::new(),
        };
        page.add(&format!("<h1>{}</h1>\n", escape(title)));
        page
    }

    fn add(&mut self, html: &str) {
        self.body.push_str(html);
    }

    pub(super) fn heading(&mut self, text: &str) {
        self.add(&format!("<h2>{}</h2>\n", escape(text)));
    }

    pub(super) fn subheading(&mut self, text: &str) {
        self.add(&format!("<h3>{}</h3>\n", escape(text)));
    }

    pub(super) fn paragraph(&mut self, text: &str) {
        self.add(&format!("<p>{}</p>\n", escape(text)));
    }

    /// A text as it is, which opens on a click.
    pub(super) fn details(&mut self, summary: &str, text: &str) {
        let (summary, text) = (escape(summary), escape(text));
        self.add(&format!(
            "<details><summary>{summary}</summary><pre tabindex=\"0\">{text}</pre></details>\n"
        ));
    }

    /// Colours, as CSS has them, and what they stand for.
    pub(super) fn key(&mut self, entries: &[(&str, &str)]) {
        self.add("<ul class=\"legend\">");
        for (colour, name) in entries {
            let name = escape(name);
            self.add(&format!(
                "<li><i style=\"background:{colour}\"></i>{name}</li>"
            ));
        }
        self.add("</ul>\n");
    }

    /// Charts side by side where there is room, each under what it shows.
    pub(super) fn charts(&mut self, charts: &[(Figure, String)]) {
        self.add("<div class=\"charts\">\n");
        for (figure, caption) in charts {
            let caption = escape(caption);
            self.add(&format!(
                "<figure><figcaption>{caption}</figcaption><div class=\"chart\" role=\"img\" \
                 aria-label=\"{caption}\">{}</div>",
                figure.svg
            ));
            if !figure.legend.is_empty() {
                self.add("<ul class=\"legend\">");
                for entry in &figure.legend {
                    let (sample, name) = (&entry.sample, escape(&entry.name));
                    self.add(&format!("<li>{sample}{name}</li>\n"));
                }
                self.add("</ul>");
            }
            self.add("</figure>\n");
        }
        self.add("</div>\n");
    }

    /// A table, which scrolls sideways on a narrow screen.
    pub(super) fn table(&mut self, table: &Table) {
        let class = match table.kind {
            TableKind::Numbers => "",
            TableKind::Words => " class=\"words\"",
        };
        self.add(&format!(
            "<div class=\"scroll\" tabindex=\"0\"><table{class}><thead><tr>"
        ));
        for name in &table.head {
            self.add(&format!("<th scope=\"col\">{}</th>", escape(name)));
        }
        self.add("</tr></thead><tbody>\n");
        for row in &table.rows {
            self.add("<tr>");
            for (column, cell) in row.iter().enumerate() {
                self.cell(cell, column == 0);
            }
            self.add("</tr>\n");
        }
        self.add("</tbody></table></div>\n");
    }

    fn cell(&mut self, cell: &Cell, names_row: bool) {
        let text = escape(&cell.text);
        let cell = match cell.heat {
            Some(heat) => format!(
                "<td class=\"heat\" style=\"background:{}\">{text}</td>",
                heat_colour(heat)
            ),
            None if names_row && cell.text.chars().count() > LONG => {
                format!("<th scope=\"row\" class=\"long\">{text}</th>")
            }
            None if names_row => format!("<th scope=\"row\">{text}</th>"),
            None => format!("<td>{text}</td>"),
        };
        self.add(&cell);
    }

    /// Pictures, each above its label and what was predicted.
    pub(super) fn gallery(&mut self, size: PictureSize, pictures: &[Picture]) {
        let class = match size {
            PictureSize::Small => "gallery small",
            PictureSize::Large => "gallery",
        };
        self.add(&format!("<div class=\"{class}\">\n"));
        for picture in pictures {
            let data = base64(&picture.png);
            let (label, predicted) = (escape(&picture.label), escape(&picture.predicted));
            let detail = escape(&picture.detail);
            let class = if picture.correct { "right" } else { "wrong" };
            self.add(&format!(
                "<figure><img alt=\"label {label}, predicted {predicted}\" \
                 src=\"data:image/png;base64,{data}\"><figcaption>label: {label}<br>predicted: \
                 <span class=\"{class}\">{predicted}</span><br>{detail}</figcaption></figure>\n"
            ));
        }
        self.add("</div>\n");
    }

    pub(super) fn finish(self, title: &str) -> String {
        let mut html = String::new();
        let title = escape(title);
        let _ = write!(
            html,
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n\
             <title>{title}</title>\n<link rel=\"icon\" href=\"data:,\">\n<style>{STYLE}</style>\n</head>\n\
             <body>\n{}</body>\n</html>\n",
            self.body
        );
        html
    }
}

/// A cell of a table.
#[derive(Debug, Clone)]
pub(super) struct Cell {
    text: String,
    /// Its colour, from 0 to 1.
    heat: Option<f64>,
}

impl Cell {
    pub(super) fn text(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            heat: None,
        }
    }

    pub(super) fn heat(text: String, heat: f64) -> Self {
        Self {
            text,
            heat: Some(heat),
        }
    }
}

/// A blue that covers the page's colour more or less: text of the page's own colour reads well on it,
/// light or dark.
fn heat_colour(heat: f64) -> String {
    let heat = if heat.is_finite() {
        heat.clamp(0.0, 1.0)
    } else {
        0.0
    };
    format!("rgba(0,114,178,{:.3})", 0.6 * heat)
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_from_data_are_text_not_markup() {
        let mut page = Page::new("<b>");
        page.table(&Table {
            head: vec!["a".into()],
            rows: vec![vec![Cell::text("<script>\"")]],
            kind: TableKind::Words,
        });
        let html = page.finish("x");
        assert!(html.contains("&lt;script&gt;&quot;") && !html.contains("<script"));
    }
}
