//! The page: one file, no network, for light and dark, wide and narrow.

use std::fmt::Write;

use crate::report::charts::Figure;

/// A page that grows section by section.
#[derive(Debug)]
pub(super) struct Page {
    body: String,
}

const STYLE: &str = "\
:root{color-scheme:light dark;--soft:#8884;--accent:#0072b2}\
body{font:16px/1.5 system-ui,sans-serif;margin:0 auto;max-width:1100px;padding:1rem}\
h1{font-size:1.5rem}h2{font-size:1.15rem;margin:2rem 0 .5rem}\
p{margin:.4rem 0;max-width:46rem}\
figure{margin:0;max-width:640px}figcaption{font-size:.9rem;opacity:.85}\
svg{width:100%;height:auto;display:block}\
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,420px),1fr));gap:1.2rem}\
.legend{display:flex;flex-wrap:wrap;gap:.2rem 1rem;font-size:.85rem;margin:.2rem 0}\
.legend i{display:inline-block;width:.8em;height:.8em;margin-right:.4em;border-radius:50%}\
.scroll{overflow-x:auto}\
table{border-collapse:collapse;font-size:.9rem}\
th,td{padding:.25rem .5rem;text-align:right;white-space:nowrap;border-bottom:1px solid var(--soft)}\
th:first-child,td:first-child{text-align:left}\
th{font-weight:600}\
td.heat{color:#000;min-width:2.4rem;text-align:center;border:1px solid #fff3}\
.gallery{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,260px),1fr));gap:1rem}\
.gallery img{width:100%;image-rendering:pixelated;border-radius:4px}\
code{font-size:.9em}";

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

    pub(super) fn paragraph(&mut self, text: &str) {
        self.add(&format!("<p>{}</p>\n", escape(text)));
    }

    /// Charts side by side where there is room, each with what it shows.
    pub(super) fn charts(&mut self, charts: &[(Figure, &str)]) {
        self.add("<div class=\"charts\">\n");
        for (figure, caption) in charts {
            let caption = escape(caption);
            let names = figure.legend.iter().map(|(colour, name)| {
                let name = escape(name);
                format!("<span><i style=\"background:{colour}\"></i>{name}</span>")
            });
            let (svg, names) = (&figure.svg, names.collect::<String>());
            self.add(&format!(
                "<figure role=\"img\" aria-label=\"{caption}\">{svg}<p class=\"legend\">{names}</p>\
                 <figcaption>{caption}</figcaption></figure>\n"
            ));
        }
        self.add("</div>\n");
    }

    /// A table with a head; the first column names the rows.
    pub(super) fn table(&mut self, head: &[String], rows: &[Vec<String>]) {
        let rows: Vec<Vec<Cell>> = rows
            .iter()
            .map(|row| row.iter().cloned().map(Cell::plain).collect())
            .collect();
        self.cells(head, &rows);
    }

    /// As [`Self::table`] with coloured cells.
    pub(super) fn cells(&mut self, head: &[String], rows: &[Vec<Cell>]) {
        self.add("<div class=\"scroll\"><table><thead><tr>");
        for name in head {
            self.add(&format!("<th scope=\"col\">{}</th>", escape(name)));
        }
        self.add("</tr></thead><tbody>\n");
        for row in rows {
            self.add("<tr>");
            for cell in row {
                let text = escape(&cell.text);
                match cell.heat {
                    Some(heat) => self.add(&format!(
                        "<td class=\"heat\" style=\"background:{}\">{text}</td>",
                        heat_colour(heat)
                    )),
                    None => self.add(&format!("<td>{text}</td>")),
                }
            }
            self.add("</tr>\n");
        }
        self.add("</tbody></table></div>\n");
    }

    /// Pictures, each a PNG file's bytes, with what they show.
    pub(super) fn gallery(&mut self, pictures: &[(Vec<u8>, String)]) {
        self.add("<div class=\"gallery\">\n");
        for (png, caption) in pictures {
            let data = base64(png);
            let caption = escape(caption);
            self.add(&format!(
                "<figure><img alt=\"{caption}\" src=\"data:image/png;base64,{data}\"><figcaption>{caption}</figcaption></figure>\n"
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
    pub(super) fn plain(text: String) -> Self {
        Self { text, heat: None }
    }

    pub(super) fn heat(text: String, heat: f64) -> Self {
        Self {
            text,
            heat: Some(heat),
        }
    }
}

/// From white to a blue on which black text reads well.
fn heat_colour(heat: f64) -> String {
    let heat = if heat.is_finite() {
        heat.clamp(0.0, 1.0)
    } else {
        0.0
    };
    let mix = |from: f64, to: f64| (from + (to - from) * heat).round() as u8;
    format!(
        "rgb({},{},{})",
        mix(255.0, 86.0),
        mix(255.0, 180.0),
        mix(255.0, 233.0)
    )
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
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
        page.table(&["a".into()], &[vec!["<script>\"".into()]]);
        let html = page.finish("x");
        assert!(html.contains("&lt;script&gt;&quot;") && !html.contains("<script"));
    }
}
