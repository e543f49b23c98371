//! Claims about `trellink verify`.

mod common;

use common::{damaged, data, golden_files, run};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

const GOLDEN: &str = "mul1_3bpw.safetensors";

fn verify(paths: &[PathBuf], options: &[&str]) -> common::Run {
    let paths = paths.iter().map(|path| path.clone().into_os_string());
    let options = ["--device", "host"]
        .iter()
        .chain(options)
        .map(OsString::from);
    run([OsString::from("verify")]
        .into_iter()
        .chain(paths)
        .chain(options))
}

/// Verifies a damaged golden file.
fn verify_damaged(tensor: &str, damage: impl Fn(&mut Vec<u8>, usize)) -> common::Run {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("damaged.safetensors");
    std::fs::write(&path, damaged(GOLDEN, tensor, damage)).unwrap();
    verify(&[path], &[])
}

#[test]
fn every_golden_file_passes_also_where_ranks_hold_nothing() {
    let files = golden_files();
    let run = verify(&files, &["--world", "3"]);
    assert_eq!(run.status, 0, "{}{}", run.out, run.error);
    assert!(run.out.starts_with("3 ranks on host ("), "{}", run.out);
    assert!(
        run.out.ends_with("\n27 linears: 27 passed, 0 failed\n"),
        "{}",
        run.out
    );
    assert_eq!(run.error, "");
    let json = verify(&files, &["--world", "8", "--json"]).json(0);
    assert_eq!((&json["passed"], &json["failed"]), (&27.into(), &0.into()));
    for linear in json["linears"].as_array().unwrap() {
        assert_eq!(linear["inner_mismatches"], 0);
        assert_eq!(linear["residual_mismatches"], 0);
        assert_eq!(linear["ranks_agree"], true);
        for error in [
            "row_error",
            "row_error_from_file",
            "column_error",
            "column_error_from_file",
        ] {
            assert!(linear[error].as_f64().unwrap() <= 4e-4, "{linear}");
        }
    }
}

/// As the JSON says it, so to the last digit.
#[test]
#[cfg(target_os = "linux")]
fn ranks_in_processes_find_what_ranks_in_threads_find() {
    let mut paths: Vec<PathBuf> = golden_files().into_iter().take(3).collect();
    paths.push(data("models/austen-3bpw-mcg"));
    let threads = verify(&paths, &["--world", "3", "--json"]).json(0);
    let processes = verify(&paths, &["--world", "3", "--json", "--processes"]).json(0);
    assert_eq!(processes, threads);
    assert_eq!(processes["passed"], 32);
    let alone = verify(&paths[..1], &["--world", "1", "--json", "--processes"]).json(0);
    assert_eq!(alone["passed"], 1, "a single rank has nobody to meet");
}

#[test]
#[cfg(target_os = "linux")]
fn a_rank_that_cannot_do_its_part_is_named_in_one_line() {
    // As the parent starts it, but nobody answers.
    let path = data("golden").join(GOLDEN);
    let run = verify(&[path], &["--world", "2", "--rank", "1"]);
    assert_eq!(run.status, 1, "{}{}", run.out, run.error);
    assert_eq!(run.error.lines().count(), 1, "{}", run.error);
    assert!(run.error.contains("rank 1 could not join"), "{}", run.error);
}

#[test]
fn a_checkpoint_without_golden_tensors_passes_on_random_inputs() {
    let model = data("models/austen-3bpw-mcg");
    let json = verify(&[model], &["--rows", "2", "--json"]).json(0);
    assert_eq!(
        (&json["world"], &json["passed"], &json["failed"]),
        (&2.into(), &29.into(), &0.into())
    );
    assert_eq!(json["linears"][0]["rows"], 2);
    assert!(json["linears"][0]["inner_mismatches"].is_null());
}

#[test]
fn one_wrong_bit_in_the_expected_weights_is_a_failure() {
    let run = verify_damaged("inner", |bytes, begin| bytes[begin + 100] ^= 1);
    assert_eq!(run.status, 1, "{}{}", run.out, run.error);
    assert!(
        run.out.contains("1 reference weights differ from `inner`"),
        "{}",
        run.out
    );
    assert!(
        run.out.ends_with("\n1 linears: 0 passed, 1 failed\n"),
        "{}",
        run.out
    );
}

#[test]
fn a_wrong_output_is_a_failure_of_both_ways_to_split() {
    let run = verify_damaged("y", |bytes, begin| bytes[begin + 3] ^= 0x80);
    assert_eq!(run.status, 1, "{}{}", run.out, run.error);
    assert!(
        run.out.contains("row-parallel error from `y`"),
        "{}",
        run.out
    );
    assert!(
        run.out.contains("column-parallel error from `y`"),
        "{}",
        run.out
    );
}

#[test]
fn outputs_that_are_no_numbers_are_a_failure() {
    // The first output scale becomes an f16 NaN.
    let run = verify_damaged("layer.svh", |bytes, begin| {
        bytes[begin..begin + 2].copy_from_slice(&[0, 0x7e]);
    });
    assert_eq!(run.status, 1, "{}{}", run.out, run.error);
    assert!(run.out.contains("row-parallel error inf"), "{}", run.out);
}

#[test]
fn one_bad_file_among_good_ones_fails_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let bad = folder.path().join("bad.safetensors");
    std::fs::write(
        &bad,
        damaged(GOLDEN, "inner", |bytes, begin| bytes[begin] ^= 1),
    )
    .unwrap();
    let good = data("golden").join(GOLDEN);
    let run = verify(&[good, bad], &[]);
    assert_eq!(run.status, 1, "{}{}", run.out, run.error);
    assert!(run.out.contains("bad.safetensors: layer: "), "{}", run.out);
    assert!(
        run.out.ends_with("\n2 linears: 1 passed, 1 failed\n"),
        "{}",
        run.out
    );
}

#[test]
fn a_truncated_file_is_refused_by_name() {
    verify_damaged("inner", |bytes, _| bytes.truncate(bytes.len() - 1))
        .assert_refused("damaged.safetensors");
}

#[test]
fn golden_tensors_of_another_shape_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("renamed.safetensors");
    let mut bytes = std::fs::read(data("golden").join(GOLDEN)).unwrap();
    let at = bytes
        .windows(7)
        .position(|text| text == b"[3,128]")
        .unwrap();
    bytes[at..at + 7].copy_from_slice(b"[128,3]");
    std::fs::write(&path, bytes).unwrap();
    verify(&[path], &[]).assert_refused("tensor `x` beside `layer`: found F16 [128, 3]");
}

#[test]
fn bad_arguments_are_refused() {
    let golden = data("golden").join(GOLDEN);
    let refused = |options: &[&str], text: &str| {
        verify(std::slice::from_ref(&golden), options).assert_refused(text);
    };
    refused(&["--world", "0"], "--world");
    refused(&["--world", "9"], "--world");
    refused(&["--rows", "0"], "--rows");
    refused(&["--colour"], "--colour");
    verify(&[], &[]).assert_refused("PATH");
    verify(&[Path::new("no/such/file").into()], &[]).assert_refused("no/such/file");
    run(["verify", "--device", "tpu", "x"]).assert_refused("--device");
    let model_without_linears = data("models/austen-3bpw-mcg/golden_logits.safetensors");
    verify(&[model_without_linears], &[]).assert_refused("no EXL3 linear");
}

#[test]
#[cfg(not(feature = "cuda"))]
fn cuda_without_the_feature_is_refused_with_the_remedy() {
    let golden = data("golden").join(GOLDEN);
    run([
        Path::new("verify"),
        &golden,
        Path::new("--device"),
        Path::new("cuda"),
    ])
    .assert_refused("--features cuda");
}
