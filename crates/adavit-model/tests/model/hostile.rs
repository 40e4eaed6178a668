//! Damaged and hostile checkpoints: every one is read or refused, without a panic, and without more
//! memory than its length allows for.

use std::fs;
use std::io::{Cursor, Read, Write};
use std::path::{Path, PathBuf};

use adavit_model::{ImportOptions, ModelConfig, import, initial_tensors, write_tensors};
use rand::Rng;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;
use zip::write::SimpleFileOptions;
use zip::{ZipArchive, ZipWriter};

use crate::common::file;

fn published(name: &str) -> PathBuf {
    file(&format!("published/{name}"))
}

/// Reads a file as any command does, and checks that it took no more memory than it may: its
/// numbers once in the file's type and once as float32, and the values of a pickle.
fn read(folder: &Path, bytes: &[u8]) -> bool {
    let path = folder.join("weights");
    fs::write(&path, bytes).unwrap();
    let options = ImportOptions {
        num_heads: Some(3),
        ..ImportOptions::default()
    };
    let mut read = false;
    let memory = allocation_counter::measure(|| {
        let imported = import(&path, &options);
        // Every error is one that the user can mend by another file.
        if let Err(error) = &imported {
            assert!(error.is_input_error(), "{error:?}");
            assert!(error.to_string().contains("weights"), "{error}");
        }
        read = imported.is_ok();
    });
    let allowed = 20 * bytes.len() as u64 + (1 << 20);
    assert!(memory.bytes_max < allowed, "{} bytes", memory.bytes_max);
    read
}

/// One change: bytes set, a length made huge, a piece left out, doubled or cut off.
fn mutate(bytes: &mut Vec<u8>, within: usize, rng: &mut ChaCha8Rng) {
    let within = within.min(bytes.len()).max(1);
    let at = rng.random_range(0..within);
    match rng.random_range(0..7) {
        0 => bytes[at] = rng.random_range(0..=255),
        1 => bytes[at] ^= 1 << rng.random_range(0..8),
        2 => {
            let end = (at + rng.random_range(1..9)).min(bytes.len());
            bytes[at..end].fill(0xff);
        }
        3 => {
            let end = (at + rng.random_range(1..40)).min(bytes.len());
            bytes.drain(at..end);
        }
        4 => {
            let end = (at + rng.random_range(1..40)).min(bytes.len());
            let piece = bytes[at..end].to_vec();
            bytes.splice(at..at, piece);
        }
        5 => bytes.truncate(at),
        _ => {
            let to = rng.random_range(0..within);
            bytes.swap(at, to);
        }
    }
}

/// The archive with another pickle, its check sums right.
fn repacked(archive: &[u8], change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut archive = ZipArchive::new(Cursor::new(archive)).unwrap();
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    let stored = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    let mut change = Some(change);
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).unwrap();
        let name = entry.name().unwrap().into_owned();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        if name.ends_with("data.pkl")
            && let Some(change) = change.take()
        {
            change(&mut bytes);
        }
        writer.start_file(name, stored).unwrap();
        writer.write_all(&bytes).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// What is read of the mutants of a file: some, but not all, or the mutations would show nothing.
fn assert_some_fail(name: &str, read: usize, of: usize) {
    assert!(read > 0 && read < of, "{name}: {read} of {of} are read");
}

#[test]
fn mutated_files_are_read_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let config = ModelConfig {
        embed_dim: 24,
        num_heads: 3,
        depth: 2,
        ..ModelConfig::preset("nano_patch7_28").unwrap()
    };
    let safetensors = folder.path().join("small.safetensors");
    write_tensors(&safetensors, &initial_tensors(&config, 0, 0.0).unwrap()).unwrap();
    for (file, within) in [
        (safetensors, 4000),
        (published("deit_fused_qkv_legacy.pth"), 12_000),
        // Local headers, and the directory at the end.
        (published("deit_fused_qkv.pth"), usize::MAX),
    ] {
        let name = file.display().to_string();
        let original = fs::read(&file).unwrap();
        assert!(read(folder.path(), &original), "{name}");
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let cases = 300;
        let mutants = (0..cases).filter(|_| {
            let mut bytes = original.clone();
            for _ in 0..rng.random_range(1..4) {
                mutate(&mut bytes, within, &mut rng);
            }
            read(folder.path(), &bytes)
        });
        assert_some_fail(&name, mutants.count(), cases);
    }
}

#[test]
fn mutated_pickles_are_read_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["deit_fused_qkv.pth", "timm_saver_ema.pth"] {
        let original = fs::read(published(name)).unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let cases = 300;
        let mutants = (0..cases).filter(|_| {
            let changes = rng.random_range(1..4);
            let bytes = repacked(&original, |pickle| {
                for _ in 0..changes {
                    mutate(pickle, usize::MAX, &mut rng);
                }
            });
            read(folder.path(), &bytes)
        });
        assert_some_fail(name, mutants.count(), cases);
    }
}

#[test]
fn files_that_ask_for_memory_without_end_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    // A safetensors header of 2^63 bytes, and one tensor of 2^60 elements.
    let mut huge = (1_u64 << 63).to_le_bytes().to_vec();
    huge.extend_from_slice(b"{\"a\": 1}");
    let header = format!(
        "{{\"a\":{{\"dtype\":\"F32\",\"shape\":[{0}],\"data_offsets\":[0,{1}]}}}}",
        1_u64 << 60,
        1_u64 << 62
    );
    let mut tensor = (header.len() as u64).to_le_bytes().to_vec();
    tensor.extend_from_slice(header.as_bytes());
    // Pickles: a text of 2^63 bytes; doublings of a list in itself; storages of 2^60 elements.
    let archive = fs::read(published("deit_fused_qkv.pth")).unwrap();
    let pickled = |pickle: &[u8]| repacked(&archive, |bytes| *bytes = pickle.to_vec());
    let mut text = b"\x80\x04\x8d".to_vec();
    text.extend((1_u64 << 63).to_le_bytes());
    text.push(b'.');
    let mut doubled = b"\x80\x02]".to_vec();
    for _ in 0..100_000 {
        doubled.extend(b"q\x00(h\x00h\x00h\x00t");
    }
    doubled.push(b'.');
    let mut storage = b"\x80\x02}X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpu".to_vec();
    let large = b"\x8a\x08\x00\x00\x00\x00\x00\x00\x00\x10";
    storage.extend(large);
    storage.extend(b"tQK\x00(");
    storage.extend(large);
    storage.extend(b"t(K\x01t\x89Nt");
    storage.extend(b"Rs.");
    // One list of a million pairs, made a dictionary of again and again.
    let mut copied = b"\x80\x02(K\x01K\x02tq\x000]q\x01(".to_vec();
    copied.extend(b"h\x00".repeat(500_000));
    copied.extend(b"eq\x01\x85q\x020ccollections\nOrderedDict\nq\x030");
    copied.extend(b"h\x03h\x02R0".repeat(20_000));
    copied.extend(b"}.");
    // No element, over dimensions whose product is beyond memory.
    let header = format!(
        "{{\"a\":{{\"dtype\":\"F64\",\"shape\":[0,{0},{0}],\"data_offsets\":[0,0]}}}}",
        1_u64 << 62
    );
    let mut empty = (header.len() as u64).to_le_bytes().to_vec();
    empty.extend_from_slice(header.as_bytes());
    for bytes in [
        huge,
        tensor,
        empty,
        pickled(&text),
        pickled(&doubled),
        pickled(&storage),
        pickled(&copied),
    ] {
        assert!(!read(folder.path(), &bytes));
    }
}

#[test]
fn a_header_may_begin_like_a_pickle() {
    let folder = tempfile::tempdir().unwrap();
    let config = ModelConfig {
        embed_dim: 24,
        num_heads: 3,
        depth: 1,
        ..ModelConfig::preset("nano_patch7_28").unwrap()
    };
    let file = folder.path().join("small.safetensors");
    write_tensors(&file, &initial_tensors(&config, 0, 0.0).unwrap()).unwrap();
    let bytes = fs::read(&file).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    // Spaces behind the header until the lowest byte of its length is that of a pickle.
    let spaces = (0x80 + 256 - length % 256) % 256;
    let mut longer = (length + spaces).to_le_bytes().to_vec();
    longer.extend(&bytes[8..8 + length as usize]);
    longer.resize(longer.len() + spaces as usize, b' ');
    longer.extend(&bytes[8 + length as usize..]);
    assert_eq!(longer[0], 0x80);
    assert!(read(folder.path(), &longer));
}

#[test]
fn what_a_pickle_would_run_is_not_run() {
    let folder = tempfile::tempdir().unwrap();
    let mark = folder.path().join("ran");
    let archive = fs::read(published("deit_fused_qkv.pth")).unwrap();
    let command = format!("cposix\nsystem\n(S'touch {}'\ntR.", mark.display());
    let bytes = repacked(&archive, |pickle| *pickle = command.into_bytes());
    assert!(!read(folder.path(), &bytes));
    assert!(!mark.exists());
}
