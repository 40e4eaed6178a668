//! Pictures of test images: wrong predictions, and what each block keeps of the cheapest and the most
//! expensive.

use crate::error::Result;
use crate::report::adaptive::{AdaptiveResults, Answer, Record};
use crate::report::html::{Page, Picture, PictureSize};
use crate::report::overlay::{KEY, png};

/// Pictures of least and of most compute.
const EXTREMES: usize = 6;
/// Wrong predictions that are shown.
const MISTAKES: usize = 12;

/// Writes the wrong predictions with the greatest loss.
pub(super) fn mistakes(page: &mut Page, adaptive: &AdaptiveResults) -> Result<()> {
    let (wrong, all) = (adaptive.mistakes(), adaptive.evaluation.images);
    page.heading("Wrong predictions");
    let records = adaptive.worst_mistakes(MISTAKES);
    let shown = match records.len() {
        0 => String::new(),
        n if n == wrong => " They are shown with the probability of the prediction.".into(),
        n => format!(
            " The {n} with the greatest loss are shown, with the probability of the prediction."
        ),
    };
    page.paragraph(&format!(
        "The adaptive model classifies {wrong} of {all} test images wrongly.{shown}"
    ));
    let replay = adaptive.replay(&records)?;
    let pictures = replay.answers().enumerate().map(|(place, answer)| {
        Ok(Picture {
            png: png(&replay.picture(place))?,
            detail: format!("the label's probability: {:.2}", answer.label_probability),
            ..captioned(answer)
        })
    });
    let pictures: Vec<Picture> = pictures.collect::<Result<_>>()?;
    page.gallery(PictureSize::Small, &pictures);
    Ok(())
}

/// Writes the images of the least compute, and those of the most.
pub(super) fn extremes(page: &mut Page, adaptive: &AdaptiveResults) -> Result<()> {
    page.heading("What each block keeps");
    page.paragraph(
        "Each picture shows the image, then what each block keeps of it: dropped patches are pale. \
         The boxes below a block are its attention (attn) and its MLP.",
    );
    page.key(&KEY);
    let found = adaptive.extremes(EXTREMES, &adaptive.macs());
    for (title, records) in [
        ("Images that take the least compute", &found.least),
        ("Images that take the most compute", &found.most),
    ] {
        page.subheading(title);
        page.gallery(PictureSize::Large, &overlays(adaptive, records)?);
    }
    Ok(())
}

fn overlays(adaptive: &AdaptiveResults, records: &[Record]) -> Result<Vec<Picture>> {
    let replay = adaptive.replay(records)?;
    let pictures = replay.answers().enumerate().map(|(place, answer)| {
        Ok(Picture {
            png: png(&replay.overlay(place, &[]))?,
            detail: format!("{:.2} of the dense model's MACs", answer.macs_share),
            ..captioned(answer)
        })
    });
    pictures.collect()
}

/// A picture's label and prediction, without the picture.
fn captioned(answer: Answer) -> Picture {
    Picture {
        png: Vec::new(),
        predicted: format!("{} ({:.2})", answer.predicted, answer.probability),
        label: answer.label,
        correct: answer.correct,
        detail: String::new(),
    }
}
