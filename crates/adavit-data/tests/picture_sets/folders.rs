//! Folders of pictures on disk.

use adavit_data::{OpenOptions, Reason, open};

use crate::files::{contents, error, folder, found, names, png, put};

#[test]
fn pictures_are_in_the_order_of_classes_then_paths() {
    let root = folder(&[
        "train/dog/b.JPG",
        "train/dog/a.png",
        "train/cat/deep/er/x.Jpeg",
        "train/cat/a.png",
        "val/cat/1.png",
        "val/dog/2.png",
    ]);
    let found = found(root.path());
    assert_eq!(found.classes, "classes: 2 folders by name");
    assert_eq!(found.class_names, ["cat", "dog"]);
    let train = found.train.unwrap();
    assert_eq!(train.labels(), [0, 0, 1, 1]);
    let expected = [3, 2, 1, 0].map(png);
    for (i, expected) in expected.iter().enumerate() {
        assert_eq!(&train.bytes(i).unwrap(), expected);
    }
    let place = train.place(1).replace('\\', "/");
    assert!(place.ends_with("train/cat/deep/er/x.Jpeg"), "{place}");
    assert_eq!(train.picture(0, 3).unwrap().size(), (2, 3));
    assert_eq!(train.picture(0, 1).unwrap().channels(), 1);
    assert_eq!(found.val.unwrap().len(), 2);
    assert!(found.test.is_none() && found.whole.is_none());
    assert!(
        train
            .bytes(4)
            .unwrap_err()
            .to_string()
            .contains("below 4, found 4")
    );
}

#[test]
fn everything_that_is_left_out_is_counted() {
    let root = folder(&[
        "cat/a.png",
        "dog/b.png",
        ".hidden/c.png",
        "cat/.d.png",
        "__MACOSX/cat/e.png",
    ]);
    for (path, bytes) in [
        ("cat/empty.jpg", &b""[..]),
        ("cat/notes.txt", b"x"),
        ("dog/photo.HEIC", b"x"),
        ("flat.png", b"x"),
        ("zebra/readme.md", b"x"),
    ] {
        put(root.path(), path, bytes);
    }
    let found = found(root.path());
    assert_eq!(found.class_names, ["cat", "dog"]);
    let count = |reason| found.left_out.count(reason);
    assert_eq!(count(Reason::Hidden), 2);
    assert_eq!(count(Reason::SystemFolder), 1);
    assert_eq!(count(Reason::Empty), 1);
    assert_eq!(count(Reason::NotAPicture), 2);
    assert_eq!(count(Reason::UnreadKind), 1);
    assert_eq!(count(Reason::NoLabel), 1);
    assert_eq!(count(Reason::EmptyClass), 1);
    assert_eq!(found.left_out.pictures(), 3);
    let text = found.left_out.to_string();
    assert!(
        text.contains("1 pictures of a kind that is not read: dog/photo.HEIC"),
        "{text}"
    );
}

/// An archiver's folder is no class, and shifts no label.
#[test]
fn a_system_folder_shifts_no_label() {
    let paths = ["c/i0.png", "d/i0.png", "e/i0.png"];
    let clean = folder(&paths);
    let data = folder(&paths);
    put(data.path(), "__MACOSX/c/._i0.png", b"\x00\x05\x16\x07");
    let [clean, data] = [&clean, &data].map(|root| found(root.path()));
    assert_eq!(clean.class_names, data.class_names);
    assert_eq!(
        contents(&clean.whole.unwrap()),
        contents(&data.whole.unwrap())
    );
    assert_eq!(data.left_out.count(Reason::SystemFolder), 1);
}

/// Every picture is read or counted.
#[test]
fn bitmaps_in_class_folders_are_not_lost() {
    let root = folder(&["a/i0.png", "a/x.bmp", "b/y.tif", "c/z.gif", "d/w.ppm"]);
    let found = found(root.path());
    assert_eq!(found.whole.unwrap().len() + found.left_out.pictures(), 5);
    assert_eq!(found.class_names, ["a", "b", "c", "d"]);
}

#[test]
fn a_folder_without_data_lists_what_was_found_and_the_formats() {
    let root = tempfile::tempdir().unwrap();
    let text = error(root.path(), &OpenOptions::default());
    assert!(
        text.contains("an empty folder") && text.contains("train/CLASS/x.jpg"),
        "{text}"
    );
    put(root.path(), "notes.txt", b"x");
    let text = error(root.path(), &OpenOptions::default());
    assert!(text.contains("found notes.txt"), "{text}");
    let text = error(&root.path().join("notes.txt"), &OpenOptions::default());
    assert!(text.contains("a .txt file is no data set"), "{text}");
    let text = error(&root.path().join("nowhere"), &OpenOptions::default());
    assert!(text.contains("cannot be opened"), "{text}");
    put(root.path(), "train.tar.gz", b"x");
    let text = error(root.path(), &OpenOptions::default());
    assert!(text.contains("decompress it"), "{text}");
}

#[cfg(unix)]
#[test]
fn links_are_followed_and_a_circle_is_named() {
    use std::os::unix::fs::symlink;
    let elsewhere = folder(&["dogs/a.png", "b.png"]);
    let root = folder(&["cat/a.png"]);
    symlink(elsewhere.path().join("dogs"), root.path().join("dog")).unwrap();
    symlink(
        elsewhere.path().join("b.png"),
        root.path().join("cat/link.png"),
    )
    .unwrap();
    symlink(
        elsewhere.path().join("gone.png"),
        root.path().join("cat/gone.png"),
    )
    .unwrap();
    let found = found(root.path());
    assert_eq!(found.whole.unwrap().labels(), [0, 0, 1]);
    assert_eq!(found.left_out.count(Reason::Unreadable), 1);
    // Two folders that link to each other.
    symlink(root.path().join("cat"), elsewhere.path().join("dogs/x")).unwrap();
    symlink(elsewhere.path().join("dogs"), root.path().join("cat/y")).unwrap();
    let text = error(root.path(), &OpenOptions::default());
    assert!(text.contains("leads back to"), "{text}");
}

#[test]
fn a_folder_that_disappears_is_an_error_with_the_file() {
    let root = folder(&["cat/a.png", "dog/b.png"]);
    let set = found(root.path()).whole.unwrap();
    std::fs::remove_dir_all(root.path().join("dog")).unwrap();
    assert!(set.picture(0, 3).is_ok());
    let text = set.picture(1, 3).unwrap_err().to_string();
    assert!(text.contains("b.png: cannot be read"), "{text}");
}

#[test]
fn all_threads_read_the_same() {
    let root = folder(&["a/1.png", "a/2.png", "b/3.png", "b/4.png"]);
    let set = found(root.path()).whole.unwrap();
    let expected = contents(&set);
    std::thread::scope(|scope| {
        let readers = [(); 4].map(|()| scope.spawn(|| contents(&set)));
        for reader in readers {
            assert_eq!(reader.join().unwrap(), expected);
        }
    });
}

#[test]
fn a_cached_list_sees_what_was_added() {
    let (root, cache) = (
        folder(&["a/1.png", "b/2.png"]),
        tempfile::tempdir().unwrap(),
    );
    let options = OpenOptions {
        cache: Some(cache.path().to_path_buf()),
        ..OpenOptions::default()
    };
    let len = || open(root.path(), &options).unwrap().whole.unwrap().len();
    assert_eq!((len(), len()), (2, 2));
    put(root.path(), "b/3.png", &png(3));
    assert_eq!(len(), 3);
}

#[test]
fn annotations_label_the_pictures_of_a_flat_part() {
    let root = folder(&[
        "train/n01/images/n01_0.JPEG",
        "train/n02/images/n02_0.JPEG",
        "val/images/val_0.JPEG",
        "val/images/val_1.JPEG",
        "test/images/test_0.JPEG",
    ]);
    put(
        root.path(),
        "train/n01/n01_boxes.txt",
        b"n01_0.JPEG\t0\t0\t1\t1\n",
    );
    put(
        root.path(),
        "val/val_annotations.txt",
        b"val_0.JPEG\tn02\t0\t0\t1\t1\nval_1.JPEG\tn01\t0\t0\t1\t1\n",
    );
    let found = found(root.path());
    assert_eq!(found.class_names, names(&["n01", "n02"]));
    assert_eq!(found.train.unwrap().labels(), [0, 1]);
    assert_eq!(contents(&found.val.unwrap()), [(0, png(3)), (1, png(2))]);
    assert!(found.test.is_none());
    assert_eq!(found.left_out.count(Reason::NoLabel), 1);
}
