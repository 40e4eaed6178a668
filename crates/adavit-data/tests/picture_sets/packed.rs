//! Tar and parquet shards, written and read.

#[cfg(feature = "parquet")]
mod parquet {
    use std::path::{Path, PathBuf};

    use adavit_data::{OpenOptions, write_parquet};

    use crate::files::{contents, error, folder, found, put};

    #[test]
    fn packing_keeps_index_label_bytes_and_names() {
        let root = folder(&[
            "cat/a.png",
            "cat/b.png",
            "dog/c.png",
            "eel/d.png",
            "eel/e.png",
        ]);
        let set = found(root.path()).whole.unwrap();
        let packed = tempfile::tempdir().unwrap();
        let files = write_parquet(packed.path(), "train", &set, 2).unwrap();
        assert_eq!(files.len(), 3);
        let found = found(packed.path());
        assert_eq!(found.format, "parquet shards");
        assert_eq!(found.class_names, set.class_names());
        assert_eq!(
            found.classes,
            "classes: 3 by the names that the data set states"
        );
        let train = found.train.unwrap();
        assert_eq!(contents(&train), contents(&set));
        assert!(
            train
                .place(2)
                .ends_with("train-00001-of-00003.parquet: row 0")
        );
        let text = write_parquet(packed.path(), "train", &set, 2)
            .unwrap_err()
            .to_string();
        assert!(text.contains("there already"), "{text}");
        std::fs::remove_file(&files[1]).unwrap();
        let text = error(packed.path(), &OpenOptions::default());
        assert!(
            text.contains("train: shard 1 of 0 to 2 is missing"),
            "{text}"
        );
    }

    #[test]
    fn pictures_of_several_groups_and_pages_are_found_in_any_order() {
        let root = tempfile::tempdir().unwrap();
        // Large enough for several pages and blocks.
        for i in 0..230_u32 {
            let mut bytes = crate::files::png(i as u8);
            bytes.extend((0..20_000).map(|j| (i.wrapping_mul(31) ^ j) as u8));
            put(root.path(), &format!("{}/{i:03}.png", i % 3), &bytes);
        }
        let set = found(root.path()).whole.unwrap();
        let packed = tempfile::tempdir().unwrap();
        write_parquet(packed.path(), "val", &set, 1000).unwrap();
        let val = found(packed.path()).val.unwrap();
        std::thread::scope(|scope| {
            for thread in 0..3 {
                let (set, val) = (&set, &val);
                scope.spawn(move || {
                    for i in (0..set.len()).map(|i| (i * 97 + thread * 11) % set.len()) {
                        assert_eq!(val.bytes(i).unwrap(), set.bytes(i).unwrap(), "{i}");
                    }
                });
            }
        });
    }

    /// `tools/record/hf_parquet.py` wrote it with the library `datasets`.
    #[test]
    fn a_file_of_the_library_datasets_is_read() {
        let file: PathBuf =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sets/train-00000-of-00001.parquet");
        let found = found(&file);
        assert_eq!(found.class_names, ["zebra", "ant", "cow"]);
        let train = found.train.unwrap();
        let labels: Vec<u32> = (0..24).map(|i| i % 3).collect();
        assert_eq!(train.labels(), labels);
        for i in 0..24 {
            let picture = train.picture(i, 3).unwrap();
            assert_eq!(picture.size(), (4, 5));
            assert_eq!(picture.bytes()[..3], [i as u8, i as u8 * 2, 255 - i as u8]);
        }
    }
}

#[cfg(feature = "tar")]
mod tar {
    use std::path::Path;

    use adavit_data::{Faulty, OpenOptions, Reason, open, write_tar};

    use crate::files::{contents, error, folder, found, png, put};

    /// A path and its bytes.
    type File<'a> = (&'a str, &'a [u8]);

    fn archive(files: &[File]) -> Vec<u8> {
        let mut tar = ::tar::Builder::new(Vec::new());
        for (path, bytes) in files {
            let mut header = ::tar::Header::new_gnu();
            // Not by `append_data`, which refuses what leads outside.
            header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            header.set_cksum();
            tar.append(&header, *bytes).unwrap();
        }
        tar.into_inner().unwrap()
    }

    #[test]
    fn packing_keeps_index_label_bytes_and_names() {
        let root = folder(&[
            "cat/a.png",
            "cat/b.png",
            "dog/c.png",
            "eel/d.png",
            "eel/e.png",
        ]);
        let set = found(root.path()).whole.unwrap();
        let packed = tempfile::tempdir().unwrap();
        assert_eq!(write_tar(packed.path(), "val", &set, 2).unwrap().len(), 3);
        let found = found(packed.path());
        assert_eq!(found.format, "tar shards");
        assert_eq!(found.class_names, set.class_names());
        let val = found.val.unwrap();
        assert_eq!(contents(&val), contents(&set));
        assert!(
            val.place(2).ends_with("val-000001.tar: 000000002.png"),
            "{}",
            val.place(2)
        );
        assert!(write_tar(packed.path(), "val", &set, 2).is_err());
        assert!(write_tar(packed.path(), "../val", &set, 2).is_err());
    }

    #[test]
    fn folders_in_an_archive_are_the_same_set_as_on_disk() {
        let paths = [
            "train/cat/a.png",
            "train/dog/b.png",
            "val/cat/c.png",
            "val/dog/d.png",
        ];
        let root = folder(&paths);
        let packed = tempfile::tempdir().unwrap();
        let bytes: Vec<Vec<u8>> = (0..4).map(png).collect();
        let names = [
            "./train/cat/a.png",
            "train/dog/b.png",
            "val/cat/c.png",
            "val/dog/d.png",
        ];
        let files: Vec<(&str, &[u8])> = names
            .into_iter()
            .zip(bytes.iter().map(Vec::as_slice))
            .collect();
        // The order in the archives does not matter.
        put(packed.path(), "set-0.tar", &archive(&[files[3], files[0]]));
        put(packed.path(), "set-1.tar", &archive(&[files[2], files[1]]));
        let (disk, tar) = (found(root.path()), found(packed.path()));
        assert_eq!(tar.classes, "classes: 2 folders by name");
        assert_eq!(
            contents(&tar.train.unwrap()),
            contents(&disk.train.unwrap())
        );
        assert_eq!(contents(&tar.val.unwrap()), contents(&disk.val.unwrap()));
    }

    #[test]
    fn labels_come_from_cls_or_json_and_names_from_the_archive() {
        let root = tempfile::tempdir().unwrap();
        let (a, b) = (png(1), png(2));
        let files: [(&str, &[u8]); 5] = [
            ("k1.png", &a),
            ("k1.json", br#"{"label": 1, "caption": "x"}"#),
            ("k0.png", &b),
            ("k0.json", br#"{"label": 0}"#),
            ("classes.txt", b"cat\ndog\n"),
        ];
        put(root.path(), "x.tar", &archive(&files));
        let found = found(&root.path().join("x.tar"));
        assert_eq!(found.class_names, ["cat", "dog"]);
        assert_eq!(contents(&found.whole.unwrap()), [(0, b), (1, a.clone())]);
        let files: [(&str, &[u8]); 4] = [
            ("0.png", &a),
            ("0.cls", b"0"),
            ("1.png", &a),
            ("1.cls", b"1\n"),
        ];
        put(root.path(), "y.tar", &archive(&files));
        let found = crate::files::found(&root.path().join("y.tar"));
        assert_eq!(found.classes, "classes: labels are numbers 0..1");
    }

    #[test]
    fn what_is_wrong_in_an_archive_is_named_or_counted() {
        let root = tempfile::tempdir().unwrap();
        let a = png(1);
        let good: [(&str, &[u8]); 2] = [("0.png", &a), ("0.cls", b"0")];
        let cases: [(&[File], Reason, &str); 5] = [
            (
                &[("../1.png", &a), ("1.cls", b"0")],
                Reason::Outside,
                "leads outside",
            ),
            (&[("/etc/1.png", &a)], Reason::Outside, "leads outside"),
            (&[("1.png", &a)], Reason::NoLabel, "1.png has no label"),
            (
                &[("1.png", &a), ("1.png", &a), ("1.cls", b"0")],
                Reason::Duplicate,
                "occurs twice",
            ),
            (
                &[("1.png", &a), ("1.jpg", &a), ("1.cls", b"0")],
                Reason::Duplicate,
                "two pictures",
            ),
        ];
        for (files, reason, words) in cases {
            put(root.path(), "x.tar", &archive(&[&good[..], files].concat()));
            check(root.path(), reason, words);
        }
        // Cut after a whole file, joined with another, and empty.
        let whole = archive(&good);
        for (bytes, words) in [
            (
                whole[..whole.len() - 1024].to_vec(),
                "mark of its end is missing",
            ),
            ([&whole[..], &whole].concat(), "more data follow its end"),
        ] {
            put(root.path(), "x.tar", &bytes);
            check(root.path(), Reason::Damaged, words);
        }
        put(root.path(), "y.tar", b"");
        put(root.path(), "x.tar", &whole);
        let text = error(root.path(), &OpenOptions::default());
        assert!(text.contains("y.tar") && text.contains("missing"), "{text}");
        std::fs::remove_file(root.path().join("y.tar")).unwrap();
        let mut cut = archive(&[&good[..], &[("1.png", &a)]].concat());
        cut.truncate(512 * 5 + 20);
        put(root.path(), "x.tar", &cut);
        check(root.path(), Reason::Damaged, "damaged or ends early");
    }

    #[test]
    fn what_lies_beside_archives_is_not_ignored() {
        let a = png(1);
        let archive = archive(&[("0.png", &a), ("0.cls", b"0")]);
        for (other, bytes, words) in [
            ("train-1.tar.gz", &b"x"[..], "decompress it"),
            ("cat/1.png", &a, "found both"),
        ] {
            let root = tempfile::tempdir().unwrap();
            put(root.path(), "train-0.tar", &archive);
            put(root.path(), other, bytes);
            let text = error(root.path(), &OpenOptions::default());
            assert!(text.contains(words), "{text}");
        }
    }

    fn check(root: &Path, reason: Reason, words: &str) {
        let text = error(root, &OpenOptions::default());
        assert!(text.contains(words) && text.contains("x.tar"), "{text}");
        let options = OpenOptions {
            faulty: Faulty::LeaveOut,
            ..OpenOptions::default()
        };
        let found = open(root, &options).unwrap();
        assert_eq!(found.left_out.count(reason), 1, "{words}");
        assert_eq!(found.whole.unwrap().len(), 1, "{words}");
    }
}
