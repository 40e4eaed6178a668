//! The report of a run.
#![expect(
    clippy::unwrap_used,
    reason = "the helpers here are test code, which clippy does not see"
)]

use std::fs;

use adavit_experiment::report::write_report;
use adavit_testing::{config, loaded, made_images, run, summary};
use candle_core::Device;

#[test]
fn a_report_holds_every_figure_and_no_address() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&made_images(folder.path()));
    let out = folder.path().join("run");
    summary(run(&config, &out, &mut |_| ()).unwrap());
    let test = loaded(&config).test;
    let report = write_report(&out, &test, None, &Device::Cpu).unwrap();
    assert_eq!(report, out.join("report.html"));
    let html = fs::read_to_string(report).unwrap();
    for part in [
        "Test images",
        "Loss, the mean",
        "Accuracy on training batches",
        "Accuracy against compute",
        "Usage of each block",
        "Test images by their MACs",
        "Confusion",
        "take the least compute",
    ] {
        assert!(html.contains(part), "{part}");
    }
    assert_eq!(html.matches("<svg").count(), 5);
    assert_eq!(html.matches("data:image/png;base64,").count(), 12);
    assert!(
        !html.contains("<script") && !html.contains("src=\"http") && !html.contains("href=\"http")
    );
    // The same run gives the same page, elsewhere too.
    let copy = folder.path().join("copy.html");
    write_report(&out, &test, Some(&copy), &Device::Cpu).unwrap();
    assert!(fs::read_to_string(copy).unwrap() == html);
}
