//! Starting the program, the data it works on, and what every refusal has in common.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use adavit_data::Preprocessing;
use adavit_decision::DecisionConfig;
use adavit_model::{ModelConfig, Stem, initial_tensors};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::Value;

pub(crate) fn adavit(folder: &Path, args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_adavit"))
        .args(args)
        .current_dir(folder)
        .output()
        .unwrap()
}

pub(crate) fn json(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn idx(folder: &Path, name: &str, header: &[u32], body: &[u8]) {
    let file = fs::File::create(folder.join(format!("{name}.gz"))).unwrap();
    let mut gzip = GzEncoder::new(file, Compression::fast());
    for number in header {
        gzip.write_all(&number.to_be_bytes()).unwrap();
    }
    gzip.write_all(body).unwrap();
    gzip.finish().unwrap();
}

/// A folder of IDX files with two classes.
pub(crate) fn made_images(folder: &Path, labels_less: usize) -> PathBuf {
    let data = folder.join("images");
    fs::create_dir_all(&data).unwrap();
    for (part, n) in [("train", 64), ("t10k", 20)] {
        let pixels: Vec<u8> = (0..n * 784)
            .map(|i| ((i * 31) % 120) as u8 + if (i / 784) % 2 == 0 { 100 } else { 0 })
            .collect();
        let header = [0x803, n as u32, 28, 28];
        idx(
            &data,
            &format!("{part}-images-idx3-ubyte"),
            &header,
            &pixels,
        );
        let labels: Vec<u8> = (0..n - labels_less).map(|i| (i % 2) as u8).collect();
        let header = [0x801, labels.len() as u32];
        idx(
            &data,
            &format!("{part}-labels-idx1-ubyte"),
            &header,
            &labels,
        );
    }
    data
}

/// Checks that a command ended with bad input, and said so on one line that holds `what`; notes on what
/// was found may come before.
pub(crate) fn assert_refusal(output: &Output, what: &str) {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{text}");
    let said = text.lines().filter(|line| !line.starts_with("note: "));
    let text = said.collect::<Vec<_>>().join("\n");
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(text.starts_with("error: ") && text.contains(what), "{text}");
    assert!(output.stdout.is_empty());
}

/// Runs `args` in a folder with made images, and checks that they are refused: exit code 2, one
/// line that contains `what`, nothing written.
pub(crate) fn assert_refused(args: &[&str], what: &str, prepare: impl FnOnce(&Path)) {
    let folder = tempfile::tempdir().unwrap();
    made_images(folder.path(), 0);
    prepare(folder.path());
    let before = listing(folder.path());
    assert_refusal(&adavit(folder.path(), args), what);
    assert_eq!(listing(folder.path()), before, "{args:?}");
}

fn listing(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.sort();
    paths
}

pub(crate) fn model_tests() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../adavit-model/tests")
}

/// Where pictures of the tests are.
pub(crate) fn data_tests() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../adavit-data/tests")
}

/// A checkpoint for pictures of 24x24 pixels, with the given names of classes.
pub(crate) fn picture_model(folder: &Path, class_names: &[&str]) {
    let config = ModelConfig {
        img_size: (24, 24),
        stem: Stem::Patches { patch_size: 8 },
        embed_dim: 16,
        depth: 2,
        num_heads: 2,
        num_classes: 3,
        preprocessing: Some(Preprocessing::default()),
        decisions: Some(DecisionConfig::default()),
        class_names: class_names.iter().map(ToString::to_string).collect(),
        ..ModelConfig::preset("deit_tiny_patch16_224").unwrap()
    };
    let tensors = initial_tensors(&config, 1, 0.0).unwrap();
    let checkpoint = adavit_model::Checkpoint { config, tensors };
    checkpoint.save(folder).unwrap();
}

/// What a command wrote on standard error.
pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What a command wrote on standard output.
pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}
