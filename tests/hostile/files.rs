//! One case per fault in how files make up a checkpoint: directories, indices, several files.

use super::assert_refused;
use super::builder::Builder;
use serde_json::{json, Value};
use std::path::PathBuf;
use trellink::{Checkpoint, Error};

const INDEX: &str = "model.safetensors.index.json";

/// A directory that is removed at the end of a test.
struct Directory(tempfile::TempDir);

impl Directory {
    fn new() -> Self {
        Directory(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> &Self {
        std::fs::write(self.path(name), bytes).unwrap();
        self
    }

    /// Writes an index with this `weight_map`.
    fn index(&self, weight_map: Value) -> &Self {
        self.write(INDEX, json!({ "weight_map": weight_map }).to_string())
    }

    fn open(&self) -> trellink::Result<Checkpoint> {
        Checkpoint::open(self.0.path())
    }
}

fn one_tensor(name: &str) -> Vec<u8> {
    Builder::empty().zeros(name, "U8", &[1], 1).build()
}

#[test]
fn a_path_that_does_not_exist_is_an_io_error() {
    let directory = Directory::new();
    let error = assert_refused(Checkpoint::open(directory.path("nothing")), &["nothing"]);
    assert!(matches!(error, Error::Io { .. }));
    let none: [&str; 0] = [];
    assert_refused(
        Checkpoint::open_files(none),
        &["no path", "at least one file"],
    );
}

#[test]
fn a_directory_without_files_is_refused() {
    let directory = Directory::new();
    directory.write("model.bin", "x");
    assert_refused(
        directory.open(),
        &["found no checkpoint", "model.safetensors"],
    );
}

#[test]
fn an_empty_file_is_refused() {
    let directory = Directory::new();
    directory.write("model.safetensors", "");
    assert_refused(directory.open(), &["model.safetensors", "found 0 bytes"]);
}

#[test]
fn what_is_no_regular_file_is_refused() {
    let directory = Directory::new();
    std::fs::create_dir(directory.path("model.safetensors")).unwrap();
    assert_refused(
        directory.open(),
        &["model.safetensors", "not a regular file"],
    );
    #[cfg(unix)]
    assert_refused(
        Checkpoint::open("/dev/zero"),
        &["/dev/zero", "not a regular file"],
    );
}

#[test]
fn the_same_name_in_two_files_is_refused() {
    let directory = Directory::new();
    directory.write("a.safetensors", one_tensor("x.weight"));
    directory.write("b.safetensors", one_tensor("x.weight"));
    let parts = [
        "b.safetensors: tensor `x.weight`",
        "a.safetensors has one",
        "each name once",
    ];
    assert_refused(directory.open(), &parts);
    let twice = [
        directory.path("a.safetensors"),
        directory.path("a.safetensors"),
    ];
    assert_refused(
        Checkpoint::open_files(twice),
        &["tensor `x.weight`", "each name once"],
    );
}

#[test]
fn a_linear_whose_other_file_is_absent_is_refused() {
    let directory = Directory::new();
    let linear = Builder::valid();
    let (scales, rest) = (
        linear.clone().without("a.q.trellis"),
        linear.without("a.q.suh"),
    );
    directory.write("a.safetensors", scales.build());
    assert_refused(
        directory.open(),
        &["a.safetensors", "`a.q.trellis` is missing"],
    );
    directory.write("a.safetensors", rest.build());
    assert_refused(directory.open(), &["a.safetensors", "`a.q.suh` is missing"]);
}

#[test]
fn indices_that_are_no_index_are_refused() {
    let directory = Directory::new();
    for (text, reason) in [
        ("", "no valid JSON"),
        ("{", "no valid JSON"),
        ("\u{FEFF}{}", "no valid JSON"),
        ("[]", "no object `weight_map`"),
        ("7", "no object `weight_map`"),
        ("{}", "no object `weight_map`"),
        (r#"{"weight_map": []}"#, "no object `weight_map`"),
        (r#"{"weight_map": {}}"#, "empty `weight_map`"),
        (r#"{"weight_map": {"x": 7}}"#, "tensor `x`: found 7"),
    ] {
        directory.write(INDEX, text);
        assert_refused(directory.open(), &[INDEX, reason]);
        assert_refused(Checkpoint::open(directory.path(INDEX)), &[INDEX, reason]);
    }
    directory.write(INDEX, b"{\"weight_map\": {\"\xFF\": \"a\"}}");
    assert_refused(directory.open(), &[INDEX, "no valid JSON"]);
}

#[test]
fn an_index_that_names_a_missing_file_is_refused() {
    let directory = Directory::new();
    directory.write("a.safetensors", one_tensor("x"));
    directory.index(json!({"x": "a.safetensors", "y": "b.safetensors"}));
    assert_refused(directory.open(), &[INDEX, "b.safetensors", "absent"]);
}

#[test]
fn an_index_that_leads_out_of_its_directory_is_refused() {
    let outside = Directory::new();
    outside.write("x.safetensors", one_tensor("x"));
    let absolute = outside.path("x.safetensors");
    let directory = Directory::new();
    directory.write("a.safetensors", one_tensor("x"));
    for file in [
        "../x.safetensors",
        "b/../../x",
        "./../x",
        "..",
        ".",
        "",
        absolute.to_str().unwrap(),
    ] {
        directory.index(json!({ "x": file }));
        let parts = [
            INDEX,
            "tensor `x`",
            &format!("`{file}`"),
            "inside the directory",
        ];
        assert_refused(directory.open(), &parts);
    }
    directory.index(json!({"x": "a\0.safetensors"}));
    assert!(directory.open().is_err());
}

#[test]
fn a_promise_that_the_files_do_not_keep_is_refused() {
    let directory = Directory::new();
    directory.write("a.safetensors", one_tensor("x"));
    directory.write("b.safetensors", one_tensor("y"));
    directory.index(json!({"x": "a.safetensors", "y": "b.safetensors"}));
    assert!(directory.open().is_ok());
    directory.index(json!({"x": "a.safetensors", "y": "b.safetensors", "z": "b.safetensors"}));
    let parts = [
        "b.safetensors: tensor `z` is missing",
        INDEX,
        "promises it here",
    ];
    assert_refused(directory.open(), &parts);
    directory.index(json!({"x": "b.safetensors", "y": "a.safetensors"}));
    let parts = [
        "b.safetensors: tensor `x` is missing",
        "a.safetensors has it",
    ];
    assert_refused(directory.open(), &parts);
}

#[test]
#[cfg(target_os = "linux")]
fn names_that_are_no_utf8_are_opened_or_refused() {
    use std::os::unix::ffi::OsStrExt;
    let directory = Directory::new();
    let name = std::ffi::OsStr::from_bytes(b"\xFFa.safetensors");
    let path = directory.0.path().join(name);
    std::fs::write(&path, one_tensor("x")).unwrap();
    assert_eq!(
        directory.open().unwrap().files().collect::<Vec<_>>(),
        [&path]
    );
    std::fs::write(&path, "").unwrap();
    assert_refused(directory.open(), &["a.safetensors", "found 0 bytes"]);
}
