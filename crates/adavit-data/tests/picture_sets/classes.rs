//! Which class a folder is.

use adavit_data::{OpenOptions, open};

use crate::files::{error, folder, found, names, put};

fn of_model(num_classes: usize, class_names: &[&str]) -> OpenOptions {
    OpenOptions {
        num_classes: Some(num_classes),
        class_names: names(class_names),
        ..OpenOptions::default()
    }
}

#[test]
fn two_folders_of_a_model_with_five_names_get_the_numbers_of_their_names() {
    let root = folder(&["c/i0.png", "c/i1.png", "e/i0.png"]);
    let found = open(root.path(), &of_model(5, &["a", "b", "c", "d", "e"])).unwrap();
    assert_eq!(found.whole.unwrap().labels(), [2, 2, 4]);
    assert_eq!(found.class_names.len(), 5);
    assert_eq!(
        found.classes,
        "classes: 2 folders by the names of the 5 classes"
    );
}

#[test]
fn two_folders_of_a_model_with_five_unnamed_classes_are_refused() {
    let root = folder(&["c/i0.png", "e/i0.png"]);
    let text = error(root.path(), &of_model(5, &[]));
    assert!(
        text.contains("2 classes") && text.contains("(c, e)"),
        "{text}"
    );
    assert!(text.contains("5 classes without names (0 to 4)"), "{text}");
    assert!(text.contains("class_map"), "{text}");
}

#[test]
fn folders_called_by_numbers_are_these_classes() {
    let paths: Vec<String> = (0..12).map(|class| format!("{class}/x.png")).collect();
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    let root = folder(&paths);
    for options in [OpenOptions::default(), of_model(12, &[])] {
        let found = open(root.path(), &options).unwrap();
        assert_eq!(found.classes, "classes: folder names are numbers 0..11");
        let set = found.whole.unwrap();
        let labels: Vec<u32> = (0..12).collect();
        assert_eq!(set.labels(), labels);
        assert!(set.place(10).replace('\\', "/").ends_with("10/x.png"));
    }
}

#[test]
fn numbers_with_gaps_need_the_number_of_classes() {
    let root = folder(&["1/x.png", "3/x.png"]);
    let text = error(root.path(), &OpenOptions::default());
    assert!(
        text.contains("found 1, 3") && text.contains("num_classes"),
        "{text}"
    );
    let found = open(root.path(), &of_model(4, &[])).unwrap();
    assert_eq!(found.whole.unwrap().labels(), [1, 3]);
    assert_eq!(
        found.classes,
        "classes: folder names are numbers 1..3, 2 of 4"
    );
    let text = error(root.path(), &of_model(3, &[]));
    assert!(
        text.contains("expected 0 to 2") && text.contains("found 3"),
        "{text}"
    );
    put(root.path(), "03/y.png", b"x");
    let text = error(root.path(), &of_model(4, &[]));
    assert!(text.contains("same number"), "{text}");
}

#[test]
fn folders_that_are_no_class_of_the_model_are_listed() {
    let root = folder(&["cat/x.png", "lynx/x.png"]);
    let text = error(root.path(), &of_model(2, &["cat", "dog"]));
    assert!(
        text.contains("1 of 2 folders") && text.contains("lynx"),
        "{text}"
    );
    assert!(text.contains("cat, dog"), "{text}");
    let more = folder(&["a/x.png", "b/x.png", "c/x.png"]);
    let text = error(more.path(), &of_model(2, &[]));
    assert!(
        text.contains("3 classes") && text.contains("a, b, c"),
        "{text}"
    );
}

#[test]
fn parts_with_other_classes_are_refused_with_a_list() {
    let root = folder(&[
        "train/a/1.png",
        "train/b/1.png",
        "val/a/1.png",
        "val/c/1.png",
    ]);
    let text = error(root.path(), &OpenOptions::default());
    assert!(text.contains("only in train: b; only in val: c"), "{text}");
    // The names of a model say which class is which.
    let found = open(root.path(), &of_model(3, &["a", "b", "c"])).unwrap();
    assert_eq!(found.val.unwrap().labels(), [0, 2]);
    // An empty folder shows that the class was not forgotten.
    let root = folder(&["train/a/1.png", "train/b/1.png", "val/a/1.png"]);
    assert!(error(root.path(), &OpenOptions::default()).contains("only in train: b"));
    std::fs::create_dir(root.path().join("val/b")).unwrap();
    assert_eq!(
        open(root.path(), &OpenOptions::default())
            .unwrap()
            .class_names,
        ["a", "b"]
    );
}

#[test]
fn a_class_map_states_the_classes() {
    let root = folder(&["cat/x.png", "dog/x.png", "lynx/x.png"]);
    let maps = tempfile::tempdir().unwrap();
    for (file, text) in [
        ("map.csv", "folder,class\ncat,0\ndog,1\nlynx,0\n"),
        ("map.json", r#"{"cat": 0, "dog": 1, "lynx": 0}"#),
    ] {
        put(maps.path(), file, text.as_bytes());
        let mut options = OpenOptions {
            class_map: Some(maps.path().join(file)),
            ..OpenOptions::default()
        };
        let found = open(root.path(), &options).unwrap();
        assert_eq!(found.class_names, ["cat, lynx", "dog"]);
        assert_eq!(found.whole.unwrap().labels(), [0, 0, 1]);
        assert!(
            found
                .classes
                .starts_with("classes: 3 folders by the class map"),
            "{}",
            found.classes
        );
        options.class_names = names(&["feline", "canine"]);
        let found = open(root.path(), &options).unwrap();
        assert_eq!(found.class_names, ["feline", "canine"]);
    }
    put(maps.path(), "short.csv", b"cat,feline\ndog,canine\n");
    let options = OpenOptions {
        class_map: Some(maps.path().join("short.csv")),
        ..OpenOptions::default()
    };
    let text = error(root.path(), &options);
    assert!(text.contains("lynx"), "{text}");
    put(
        maps.path(),
        "short.csv",
        b"cat,feline\ndog,canine\nlynx,feline\n",
    );
    let found = open(root.path(), &options).unwrap();
    assert_eq!(found.class_names, ["canine", "feline"]);
    assert_eq!(found.whole.unwrap().labels(), [0, 1, 1]);
    put(maps.path(), "short.csv", b"cat,feline\ncat,canine\n");
    assert!(error(root.path(), &options).contains("\"cat\" twice"));
}

#[test]
fn a_folder_without_pictures_is_no_class() {
    let root = folder(&["a/x.png", "c/x.png"]);
    std::fs::create_dir(root.path().join("b")).unwrap();
    let found = found(root.path());
    assert_eq!(found.class_names, ["a", "c"]);
    assert!(
        found
            .left_out
            .to_string()
            .contains("1 class folders without a picture: b")
    );
}

#[test]
fn two_classes_of_one_name_are_told_apart_by_number_or_refused() {
    let model = of_model(3, &["crane", "maillot", "crane"]);
    let root = folder(&["1.png", "2.png", "3.png"]);
    put(
        root.path(),
        "a.csv",
        b"path,label\n1.png,0\n2.png,1\n3.png,2\n",
    );
    let by_number = open(&root.path().join("a.csv"), &model).unwrap();
    assert_eq!(by_number.whole.unwrap().labels(), [0, 1, 2]);
    let root = folder(&["crane/1.png", "maillot/2.png"]);
    let text = error(root.path(), &model);
    assert!(
        text.contains("called \"crane\"") && text.contains("class_map"),
        "{text}"
    );
}

#[test]
fn a_number_that_only_one_part_has_is_refused() {
    let root = folder(&[
        "train/0/a.png",
        "train/1/b.png",
        "val/0/c.png",
        "val/2/d.png",
    ]);
    let text = error(root.path(), &OpenOptions::default());
    assert!(text.contains("only in val: 2"), "{text}");
    // A model has its own classes.
    assert!(open(root.path(), &of_model(3, &[])).is_ok());
}
