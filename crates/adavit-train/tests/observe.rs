//! Contract: what a run leaves for people to look at (event files, kept epochs, recorded starts) is
//! complete, and the same after a resume.
#![expect(
    clippy::unwrap_used,
    reason = "the helpers here are test code, which clippy does not see"
)]

use std::fs;
use std::path::{Path, PathBuf};

use adavit_testing::{config, made_images, resumed, run, summary};
use adavit_train::{Event, Start};

/// Fields of a protocol buffer: number, and a varint or the bytes behind it.
type Fields = Vec<(u64, Vec<u8>)>;

fn fields(mut bytes: &[u8]) -> Fields {
    fn varint(bytes: &mut &[u8]) -> u64 {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = bytes[0];
            *bytes = &bytes[1..];
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                return value;
            }
        }
    }
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let key = varint(&mut bytes);
        let len = match key & 7 {
            0 => {
                found.push((key >> 3, varint(&mut bytes).to_le_bytes().to_vec()));
                continue;
            }
            1 => 8,
            5 => 4,
            _ => varint(&mut bytes) as usize,
        };
        found.push((key >> 3, bytes[..len].to_vec()));
        bytes = &bytes[len..];
    }
    found
}

/// The step and the fields of each event of a file.
fn records(bytes: &[u8]) -> Vec<(u64, Fields)> {
    let mut rest = bytes;
    let mut found = Vec::new();
    let checked = |data: &[u8], sum: &[u8]| {
        let crc = crc32c::crc32c(data)
            .rotate_right(15)
            .wrapping_add(0xa282_ead8);
        assert_eq!(crc.to_le_bytes(), sum);
    };
    while !rest.is_empty() {
        checked(&rest[..8], &rest[8..12]);
        let len = u64::from_le_bytes(rest[..8].try_into().unwrap()) as usize;
        let event = &rest[12..12 + len];
        checked(event, &rest[12 + len..16 + len]);
        rest = &rest[16 + len..];
        let parts = fields(event);
        let step = parts.iter().find(|(number, _)| *number == 2);
        let step = step.map_or(0, |(_, step)| {
            u64::from_le_bytes(step[..].try_into().unwrap())
        });
        found.push((step, parts));
    }
    found
}

/// The steps at which a file says that a start begins.
fn starts(bytes: &[u8]) -> Vec<u64> {
    let has_start = |parts: &[(u64, Vec<u8>)]| parts.iter().any(|(number, _)| *number == 7);
    let records = records(bytes).into_iter();
    let starts = records.filter(|(_, parts)| has_start(parts));
    starts.map(|(step, _)| step).collect()
}

/// The events of a file: step, then names and values.
fn events(bytes: &[u8]) -> Vec<(u64, Vec<(String, f32)>)> {
    let mut found = Vec::new();
    for (step, parts) in records(bytes) {
        let summary = parts.iter().find(|(number, _)| *number == 5);
        let values = summary.map_or_else(Vec::new, |(_, summary)| fields(summary));
        let scalar = |(_, value): &(u64, Vec<u8>)| {
            let value = fields(value);
            let part = |wanted| {
                &value
                    .iter()
                    .find(|(number, _)| *number == wanted)
                    .unwrap()
                    .1
            };
            let name = String::from_utf8(part(1).clone()).unwrap();
            (name, f32::from_le_bytes(part(2)[..].try_into().unwrap()))
        };
        found.push((step, values.iter().map(scalar).collect()));
    }
    found
}

/// The event files of a run.
fn event_files(run: &Path) -> Vec<PathBuf> {
    let named = |path: &PathBuf| path.file_name().unwrap().to_string_lossy().into_owned();
    let paths = fs::read_dir(run).unwrap();
    paths
        .map(|entry| entry.unwrap().path())
        .filter(|path| named(path).starts_with("events."))
        .collect()
}

/// The loss of each epoch in a run's metrics.
fn epoch_losses(run: &Path) -> Vec<f32> {
    let rows = adavit_train::RunFolder::read_metrics(run).unwrap();
    rows.iter().map(|row| row.loss as f32).collect()
}

#[test]
fn event_files_hold_every_epoch_and_exist_only_on_request() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&made_images(folder.path()));
    config.tensorboard = true;
    let out = folder.path().join("run");
    summary(run(&config, &out, &mut |_| ()).unwrap());
    let written = event_files(&out);
    let [file] = &written[..] else {
        panic!("expected one file");
    };
    let found = events(&fs::read(file).unwrap());
    let losses = |name: &str| -> Vec<(u64, f32)> {
        let named = |(step, values): &(u64, Vec<(String, f32)>)| {
            let value = values.iter().find(|(found, _)| found == name)?;
            Some((*step, value.1))
        };
        found.iter().filter_map(named).collect()
    };
    let dense = losses("dense_epoch/loss");
    let adaptive = losses("adaptive_epoch/loss");
    let values: Vec<f32> = dense
        .iter()
        .chain(&adaptive)
        .map(|(_, loss)| *loss)
        .collect();
    assert_eq!(values, epoch_losses(&out));
    // The adaptive stage continues the count of the dense one.
    assert!(dense.last().unwrap().0 < adaptive[0].0);
    // A start begins after what earlier files hold.
    assert_eq!(starts(&fs::read(file).unwrap()), [1]);
    resumed(&out, &mut |_| ()).unwrap();
    let mut begun: Vec<u64> = event_files(&out)
        .iter()
        .flat_map(|file| starts(&fs::read(file).unwrap()))
        .collect();
    begun.sort_unstable();
    assert_eq!(begun, [1, adaptive.last().unwrap().0 + 1]);
}

#[test]
fn the_best_epochs_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&made_images(folder.path()));
    (config.dense.epochs, config.keep) = (5, 2);
    let out = folder.path().join("run");
    let mut scores = Vec::new();
    run(&config, &out, &mut |event| {
        if let Event::EpochFinished(row) = event
            && row.stage.name() == "dense"
        {
            scores.push((row.held_out_top1, row.epoch));
        }
    })
    .unwrap();
    // The highest accuracy, of equal ones the earlier.
    scores.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let mut expected: Vec<String> = scores[..2]
        .iter()
        .map(|s| format!("dense-{:03}", s.1))
        .collect();
    expected.sort();
    let mut found: Vec<String> = fs::read_dir(out.join("epochs"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| name.starts_with("dense"))
        .collect();
    found.sort();
    assert_eq!(found, expected);
    let best = adavit_model::Checkpoint::load(
        &out.join("epochs").join(format!("dense-{:03}", scores[0].1)),
    );
    let dense = adavit_model::Checkpoint::load(&out.join("dense"));
    let values = |checkpoint: adavit_model::Checkpoint| {
        let head = checkpoint.tensors["head.weight"].flatten_all().unwrap();
        head.to_vec1::<f32>().unwrap()
    };
    assert_eq!(values(best.unwrap()), values(dense.unwrap()));
}

#[test]
fn patience_ends_a_stage_and_the_run_still_finishes() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(&made_images(folder.path()));
    (config.dense.epochs, config.patience) = (40, Some(2));
    let out = folder.path().join("run");
    let (mut rows, mut noted) = (Vec::new(), false);
    summary(
        run(&config, &out, &mut |event| match event {
            Event::EpochFinished(row) if row.stage.name() == "dense" => rows.push(row.best),
            Event::Note(text) => noted |= text.contains("for 2 epochs"),
            _ => {}
        })
        .unwrap(),
    );
    assert!(noted && rows.len() < 40, "{rows:?}");
    assert_eq!(rows[rows.len() - 2..], [false, false]);
}

#[test]
fn every_start_is_recorded_with_its_seed_and_commit() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(&made_images(folder.path()));
    let out = folder.path().join("run");
    summary(run(&config, &out, &mut |_| ()).unwrap());
    let starts = fs::read_to_string(out.join("run.json")).unwrap();
    let starts: Vec<Start> = serde_json::from_str(&starts).unwrap();
    assert_eq!(
        (starts.len(), starts[0].seed, &*starts[0].commit),
        (1, config.seed, "test")
    );
}
