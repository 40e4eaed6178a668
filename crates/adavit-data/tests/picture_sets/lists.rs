//! Lists in CSV and JSON lines.

use adavit_data::{Faulty, OpenOptions, Reason, open};

use crate::files::{contents, error, folder, found, png, put};

#[test]
fn a_list_gives_the_pictures_of_its_folder() {
    let paths = ["p/cat/1.png", "p/cat/2.png", "p/dog/3.png"];
    let root = folder(&paths);
    put(
        root.path(),
        "a.csv",
        b"split,label,path\nval,dog,p/dog/3.png\nval,cat,p/cat/2.png\nval,cat,p/cat/1.png\n",
    );
    put(
        root.path(),
        "b.jsonl",
        br#"{"file_name": "p/dog/3.png", "label": 1}
{"file_name": "p/cat/1.png", "label": 0}

{"file_name": "p/cat/2.png", "label": 0}
"#,
    );
    let csv = found(&root.path().join("a.csv"));
    assert_eq!(csv.class_names, ["cat", "dog"]);
    let jsonl = found(&root.path().join("b.jsonl"));
    assert_eq!(jsonl.classes, "classes: labels are numbers 0..1");
    let as_folder = contents(&found(&root.path().join("p")).whole.unwrap());
    assert_eq!(contents(&csv.val.unwrap()), as_folder);
    assert_eq!(contents(&jsonl.whole.unwrap()), as_folder);
}

#[test]
fn a_wrong_row_is_named_or_counted() {
    let root = folder(&["1.png"]);
    let list = root.path().join("a.csv");
    put(root.path(), "empty.png", b"");
    for (row, reason, words) in [
        ("gone.png,cat", Reason::Missing, "gone.png cannot be read"),
        ("empty.png,cat", Reason::Empty, "empty.png is empty"),
        ("1.png,", Reason::NoLabel, "1.png has no label"),
        (",cat", Reason::NoLabel, "expected a path"),
    ] {
        put(
            root.path(),
            "a.csv",
            format!("path,class\n1.png,cat\n{row}\n").as_bytes(),
        );
        let text = error(&list, &OpenOptions::default());
        assert!(text.contains("row 3") && text.contains(words), "{text}");
        let options = OpenOptions {
            faulty: Faulty::LeaveOut,
            ..OpenOptions::default()
        };
        let found = open(&list, &options).unwrap();
        assert_eq!(found.left_out.count(reason), 1, "{row}");
        assert_eq!(contents(&found.whole.unwrap()), [(0, png(0))]);
    }
}

#[test]
fn columns_and_splits_are_checked() {
    let root = folder(&["1.png"]);
    for (text, words) in [
        ("name,class\n1.png,cat\n", "found the columns name, class"),
        ("path,class,split\n1.png,cat,later\n", "found \"later\""),
        ("path,class\n", "found none"),
        (
            "path,class\n1.png,cat,black\n",
            "expected 2 fields, found 3",
        ),
        ("path,class\n1.png,\"cat\n2.png,dog\n", "has a line break"),
        (
            "path,class,class\n1.png,1,cat\n",
            "two columns are called \"class\"",
        ),
        ("path,class\n1.png,1\n1.png,-1\n", "from 0 on, found -1"),
        ("", "found the columns"),
    ] {
        put(root.path(), "a.csv", text.as_bytes());
        let text = error(&root.path().join("a.csv"), &OpenOptions::default());
        assert!(text.contains(words), "{text}");
    }
    put(
        root.path(),
        "a.ndjson",
        b"{\"path\": \"1.png\", \"label\": [1]}\n",
    );
    let text = error(&root.path().join("a.ndjson"), &OpenOptions::default());
    assert!(
        text.contains("row 1") && text.contains("has no label"),
        "{text}"
    );
}

#[test]
fn whole_numbers_of_a_column_of_floats_are_numbers() {
    let root = folder(&["1.png", "2.png", "3.png"]);
    let rows: Vec<String> = (0..12)
        .map(|class| format!("{}.png,{class}.0\n", class % 3 + 1))
        .collect();
    let rows = rows.concat();
    put(
        root.path(),
        "a.csv",
        format!("path,class\n{rows}").as_bytes(),
    );
    let found = found(&root.path().join("a.csv"));
    assert_eq!(found.classes, "classes: labels are numbers 0..11");
    assert_eq!(found.class_names[10], "10");
}
