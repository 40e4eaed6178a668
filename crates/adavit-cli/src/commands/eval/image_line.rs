//! A line of `--per-image`.

use adavit_data::{Labelled, SceneTruth};
use adavit_train::ImageReport;
use serde::Serialize;

/// What was found of an image and, where it is a scene, what is in it: `garments`, `area` and `boxes`.
#[derive(Debug, Serialize)]
pub(super) struct ImageLine<'a> {
    #[serde(flatten)]
    report: &'a ImageReport,
    #[serde(flatten)]
    truth: Option<SceneTruth>,
}

impl<'a> ImageLine<'a> {
    pub(super) fn new(report: &'a ImageReport, images: &dyn Labelled) -> Self {
        Self {
            report,
            truth: images.scene_truth(report.image as usize),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use adavit_data::{Dataset, FASHION_SCENES, load_splits};

    use super::*;

    fn report() -> ImageReport {
        ImageReport {
            image: 1,
            label: 1,
            predicted: 0,
            loss: 0.1,
            macs: u64::MAX,
            blocks: Vec::new(),
        }
    }

    #[test]
    fn a_line_of_an_image_whose_content_is_unknown_is_its_report() {
        let names = vec!["a".into(), "b".into()];
        let set = Dataset::new("made", [1, 1, 1], vec![0, 0], vec![0, 1], names).unwrap();
        let report = report();
        let line = serde_json::to_string(&ImageLine::new(&report, &set)).unwrap();
        assert_eq!(line, serde_json::to_string(&report).unwrap());
    }

    #[test]
    fn a_line_of_a_scene_has_its_truth() {
        let repository = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let scenes = load_splits(FASHION_SCENES, Some(&repository)).unwrap().test;
        let report = report();
        let line = serde_json::to_value(ImageLine::new(&report, scenes.as_ref())).unwrap();
        let truth = scenes.scene_truth(1).unwrap();
        assert_eq!(line["macs"], u64::MAX);
        assert_eq!(line["garments"], truth.garments());
        assert_eq!(line["area"], truth.area());
        let boxes = line["boxes"].as_array().unwrap();
        assert_eq!(boxes.len(), truth.garments());
        let first = truth.boxes()[0];
        let expected = serde_json::json!({
            "class": first.class,
            "top": first.window.top,
            "left": first.window.left,
            "height": first.window.height,
            "width": first.window.width,
            "area": first.area,
        });
        assert_eq!(boxes[0], expected);
    }
}
