//! Claims about `trellink inspect`, `info` and `bench`, and about the program as a whole.

mod common;

use common::{command, data, run};
use serde_json::Value;
use std::io::Write as _;
use std::path::Path;
use std::process::Stdio;

fn model() -> std::path::PathBuf {
    data("models/austen-3bpw-mcg")
}

#[test]
fn inspect_lists_every_linear_and_the_sums() {
    let json = run([Path::new("inspect"), &model(), Path::new("--json")]).json(0);
    let linears = json["linears"].as_array().unwrap();
    assert_eq!(linears.len(), 29);
    let sum = |field: &str| {
        linears
            .iter()
            .map(|l| l[field].as_u64().unwrap())
            .sum::<u64>()
    };
    let head = linears.iter().find(|l| l["name"] == "lm_head").unwrap();
    assert_eq!((&head["k"], &head["n"]), (&512.into(), &384.into()));
    assert_eq!(
        (&head["bits"], &head["codebook"]),
        (&6.0.into(), &"mcg".into())
    );
    assert_eq!(head["packed_bytes"], 512 * 384 * 6 / 8);
    assert!(head["bias"].is_null());

    let total = &json["total"];
    assert_eq!(total["linears"], 29);
    assert_eq!(total["packed_bytes"], sum("packed_bytes"));
    let parameters: u64 = linears
        .iter()
        .map(|l| l["k"].as_u64().unwrap() * l["n"].as_u64().unwrap())
        .sum();
    assert_eq!(total["parameters"], parameters);
    let average = 8.0 * sum("packed_bytes") as f64 / parameters as f64;
    assert_eq!(total["average_bits"], average);
    assert!(json["files"][0]
        .as_str()
        .unwrap()
        .ends_with("model.safetensors"));
}

#[test]
fn inspect_as_text_ends_with_the_sums() {
    let run = run([Path::new("inspect"), &model()]);
    assert_eq!(run.status, 0, "{}", run.error);
    assert!(
        run.out.contains("model.layers.3.mlp.down_proj"),
        "{}",
        run.out
    );
    let last = run.out.lines().last().unwrap();
    assert!(
        last.starts_with("29 linears, 12779520 parameters, 3.0"),
        "{last}"
    );
}

#[test]
fn inspect_without_linears_has_no_average() {
    let path = data("models/austen-3bpw-mcg/golden_logits.safetensors");
    let json = run([Path::new("inspect"), &path, Path::new("--json")]).json(0);
    assert_eq!(json["total"]["linears"], 0);
    assert!(json["total"]["average_bits"].is_null());
}

#[test]
fn inspect_of_nothing_is_refused() {
    run(["inspect", "no/such/folder"]).assert_refused("no/such/folder");
    run(["inspect"]).assert_refused("PATH");
}

#[test]
fn an_error_names_its_cause_once() {
    let error = run(["inspect", "no/such/folder"]).error;
    assert_eq!(error.matches("os error").count(), 1, "{error}");
}

#[test]
fn info_says_how_it_was_built_and_what_would_be_used() {
    let json = run(["info", "--json"]).json(0);
    assert_eq!(json["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(json["cuda"]["built"], cfg!(feature = "cuda"));
    assert_eq!(json["host"]["instruction_sets"][0], "baseline");
    assert!(json["host"]["threads"].as_u64().unwrap() > 0);
    assert!(!json["used"]["devices"].as_array().unwrap().is_empty());
    assert!(!json["used"]["why"].as_str().unwrap().is_empty());
    if json["gpus"].as_array().unwrap().is_empty() {
        assert_eq!(json["used"]["devices"][0], "host");
    }
    let text = run(["info"]);
    assert_eq!(text.status, 0);
    assert!(text.out.contains("would use: "), "{}", text.out);
}

/// Runs a small benchmark on the host.
fn bench(options: &[&str]) -> common::Run {
    let fixed = [
        "bench",
        "--device",
        "host",
        "--layers",
        "2",
        "--replays",
        "3",
    ];
    run(fixed.iter().chain(options))
}

#[test]
fn bench_gives_one_row_per_combination_and_variant() {
    let options = "--shape 384x256 --bits 1.5,4 --codebook mul1,mcg --m 1,3 --world 2 --json --variant fused,fused+norm,fused+squares,gemm";
    let json = bench(&options.split(' ').collect::<Vec<_>>()).json(0);
    let rows = json.as_array().unwrap();
    // 1.5 bits exist with mul1 only: three sets of weights, two M, four variants.
    assert_eq!(rows.len(), 24);
    for row in rows {
        assert_eq!(row["shape"], "384x256");
        assert_eq!(
            (&row["k"], &row["k_per_rank"], &row["n"]),
            (&384.into(), &256.into(), &256.into())
        );
        assert_eq!((&row["world"], &row["layers"]), (&2.into(), &2.into()));
        assert!(row["device"].as_str().unwrap().starts_with("host"));
        let number = |field: &str| row[field].as_f64().unwrap();
        assert!(0.0 < number("us_min") && number("us_min") <= number("us_median"));
        assert!(number("us_median") <= number("us_max"));
        assert!(number("rel_err") <= 4e-4, "{row}");
        assert_eq!(
            number("bytes_per_rank"),
            256.0 * 256.0 * number("bits") / 8.0
        );
    }
    let has = |field: &str, value: Value| rows.iter().filter(|row| row[field] == value).count();
    assert_eq!(has("variant", "fused".into()), 6);
    assert_eq!(has("variant", "fused+norm".into()), 6);
    assert_eq!(has("variant", "fused+squares".into()), 6);
    assert_eq!(has("variant", "gemm".into()), 6);
    assert_eq!(has("codebook", "mcg".into()), 8);
    assert_eq!(has("bits", 1.5.into()), 8);
    assert_eq!(has("m", 3.into()), 12);
}

#[test]
fn bench_measures_gates_in_four_forms_that_are_right() {
    let options = "--column-parallel --shape 256x384 --m 1,3 --world 2 --json";
    let json = bench(&options.split(' ').collect::<Vec<_>>()).json(0);
    let rows = json.as_array().unwrap();
    let names: Vec<_> = rows
        .iter()
        .map(|row| row["variant"].as_str().unwrap())
        .collect();
    let forms = ["gate+up", "swiglu", "norm+gate+up", "norm+swiglu"];
    assert_eq!(names, [forms, forms].concat());
    for row in rows {
        // A product of two has the errors of both.
        assert!(row["rel_err"].as_f64().unwrap() <= 8e-4, "{row}");
        // Both linears: 256 of the columns are the first rank's.
        assert_eq!(row["bytes_per_rank"], 2 * 256 * 256 / 2);
    }
}

#[test]
fn bench_reads_a_table_of_choices_and_refuses_another_file() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tuning.json");
    let options = |file: &std::path::Path| {
        let fixed = "--shape 256x128 --world 1 --variant fused --json --tuning".to_owned();
        let mut options: Vec<String> = fixed.split(' ').map(Into::into).collect();
        options.push(file.display().to_string());
        options
    };
    let run = |file: &std::path::Path| {
        let options = options(file);
        bench(&options.iter().map(String::as_str).collect::<Vec<_>>())
    };
    std::fs::write(&file, "[]").unwrap();
    assert_eq!(run(&file).json(0).as_array().unwrap().len(), 1);
    std::fs::write(&file, "[{\"sms\": 1}]").unwrap();
    let refused = run(&file);
    assert_eq!(refused.status, 2);
    assert!(refused.error.contains("entry 0"), "{}", refused.error);
}

#[test]
fn bench_runs_where_ranks_hold_nothing_and_in_f16() {
    let options = "--shape 256x128 --world 5 --residual f16 --json";
    let json = bench(&options.split(' ').collect::<Vec<_>>()).json(0);
    assert_eq!(json[0]["k_per_rank"], 128);
    assert!(json[0]["rel_err"].as_f64().unwrap() <= 4e-4);
}

/// Times differ, all else is as with threads, also where only some ranks have anything to run.
#[test]
#[cfg(target_os = "linux")]
fn bench_runs_each_rank_in_a_process() {
    let measured = |options: &str| {
        let fixed = "--shape 384x256 --m 1,3 --world 3 --json ";
        let options = fixed.to_owned() + options;
        let mut json = bench(&options.split_whitespace().collect::<Vec<_>>()).json(0);
        for row in json.as_array_mut().unwrap() {
            let number = |field: &str| row[field].as_f64().unwrap();
            assert!(0.0 < number("us_min") && number("us_min") <= number("us_median"));
            // Numbers that pass through JSON twice may lose their last digit.
            row["rel_err"] = row["rel_err"].as_f64().map(|e| format!("{e:.9e}")).into();
            for time in ["us_min", "us_median", "us_max"] {
                row[time].take();
            }
        }
        json
    };
    let mut threads = measured("");
    for row in threads.as_array_mut().unwrap() {
        assert_eq!(row["ranks"], "threads");
        row["ranks"] = "processes".into();
    }
    assert_eq!(measured("--processes"), threads);
    let text = bench(&["--shape", "256x128", "--processes"]);
    assert!(
        text.out.starts_with("2 ranks in processes on host"),
        "{}",
        text.out
    );
}

#[test]
#[cfg(target_os = "linux")]
fn bench_says_what_a_process_could_not_do() {
    bench(&["--rank", "2", "--world", "2"]).assert_refused("there is no rank 2");
    bench(&["--variant", "nccl", "--processes"]).assert_refused("the ranks are on the host");
}

#[test]
fn bench_names_the_commit_that_it_is_told() {
    let args = "bench --device host --shape 128x128 --layers 1 --replays 1 --json";
    let mut command = command(args.split(' '));
    let output = command.env("TRELLINK_COMMIT", "abc123").output().unwrap();
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json[0]["commit"], "abc123");
}

#[test]
fn bench_measures_the_variants_it_is_told() {
    let json = bench(&["--shape", "256x128", "--variant", "gemm", "--json"]).json(0);
    assert_eq!(json.as_array().unwrap().len(), 1);
    assert_eq!(json[0]["variant"], "gemm");
    bench(&["--variant", "gemm,magic"]).assert_refused("gemm+nccl");
}

#[test]
fn bench_measures_the_all_reduce_alone() {
    let json = bench(&["--shape", "256x128", "--variant", "allreduce", "--json"]).json(0);
    assert_eq!(
        (&json[0]["variant"], &json[0]["bytes_per_rank"]),
        (&"allreduce".into(), &0.into())
    );
    assert!(json[0]["rel_err"].is_null());
    let alone = ["--world", "1", "--variant", "allreduce"];
    bench(&alone).assert_refused("nothing to exchange");
}

/// Of as many bytes as it is told.
fn assert_sweeps(options: &str) {
    let args = "bench --device host --replays 2 --world 3 --all-reduce-bytes 16,2k,64k --json";
    let json = run(args.split(' ').chain(options.split_whitespace())).json(0);
    let rows = json.as_array().unwrap();
    let bytes: Vec<u64> = rows
        .iter()
        .map(|row| row["bytes"].as_u64().unwrap())
        .collect();
    assert_eq!(bytes, [16, 2048, 65_536]);
    for row in rows {
        assert_eq!(
            (&row["variant"], &row["world"]),
            (&"allreduce".into(), &3.into())
        );
        assert!(row["us_median"].as_f64().unwrap() > 0.0);
    }
}

#[test]
fn bench_measures_all_reduces_by_their_length() {
    assert_sweeps("--residual f16");
    let text = run("bench --device host --replays 1 --all-reduce-bytes 2k".split(' '));
    assert_eq!(text.status, 0, "{}", text.error);
    assert!(
        text.out
            .contains("left out: nccl: the ranks are on the host"),
        "{}",
        text.out
    );
    bench(&["--all-reduce-bytes", "2k"]).assert_refused("--layers");
    run(["bench", "--all-reduce-bytes", "17"]).assert_refused("multiple of 16");
    let alone = "bench --device host --world 1 --all-reduce-bytes 2k";
    run(alone.split(' ')).assert_refused("nothing to exchange");
}

#[test]
#[cfg(target_os = "linux")]
fn bench_measures_all_reduces_of_processes() {
    assert_sweeps("--processes");
}

#[test]
fn bench_says_what_it_leaves_out_and_why() {
    let text = bench(&["--shape", "256x128"]);
    let expected = "left out: fused-host-memory, gemm+allreduce, gemm+nccl, nccl, floor: the ranks are on the host\n";
    assert!(text.out.contains(expected), "{}", text.out);
    let json = bench(&["--shape", "256x128", "--json"]);
    assert_eq!(json.error, expected);
    bench(&["--variant", "gemm+nccl,floor"]).assert_refused("the ranks are on the host");
}

/// Measurements as `--json` printed them on two GPUs, and one of another program, which has less to say.
fn stored() -> tempfile::TempPath {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(include_bytes!("data/bench.json")).unwrap();
    file.into_temp_path()
}

#[test]
fn bench_tabulates_stored_measurements() {
    let run = run([Path::new("bench"), Path::new("--from-json"), &stored()]);
    assert_eq!(run.status, 0, "{}", run.error);
    let line = |text: &str| {
        let line = run.out.lines().find(|line| line.contains(text));
        line.unwrap_or_else(|| panic!("`{text}` in {}", run.out))
    };
    // In the first row of a variant: times, then the ratios to fused and to the floor.
    assert!(line(" gemm+nccl ").contains("25.00  24.50  26.00    2.50    5.00"));
    assert!(line(" floor ").ends_with("5.00   4.90   5.20    0.50    1.00        -"));
    assert!(line(" elsewhere ").ends_with("3.00    6.00        -"));
    assert!(run.out.contains("\nNCCL 2.28.9\n"));
}

#[test]
fn bench_gives_stored_measurements_back() {
    let path = stored();
    let stored: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let arguments = ["bench", "--json", "--from-json", path.to_str().unwrap()];
    let again = run(arguments).json(0);
    let known = |row: &Value| row["variant"] != "elsewhere";
    let rows = |json: &Value| json.as_array().unwrap().clone();
    let all = rows(&again);
    assert_eq!(all.len(), rows(&stored).len());
    for (found, given) in all.iter().zip(&rows(&stored)).filter(|(row, _)| known(row)) {
        assert_eq!(found, given);
    }
    let floor = run(arguments.into_iter().chain(["--variant", "floor"])).json(0);
    assert!(rows(&floor).iter().all(|row| row["variant"] == "floor"));
}

#[test]
fn bench_plots_measurements() {
    let folder = tempfile::tempdir().unwrap();
    let svg = folder.path().join("plot.svg");
    let stored = stored();
    let (stored, path) = (stored.to_str().unwrap(), svg.to_str().unwrap());
    let done = run(["bench", "--from-json", stored, "--svg", path]);
    assert_eq!(done.status, 0, "{}", done.error);
    let plot = std::fs::read_to_string(&svg).unwrap();
    assert!(plot.starts_with("<svg") && plot.trim_end().ends_with("</svg>"));
    for text in [
        "fused",
        "gemm+nccl",
        "floor",
        "elsewhere",
        "M (rows)",
        "bits per weight",
    ] {
        assert!(plot.contains(text), "{text}");
    }
    let fresh = bench(&["--shape", "256x128", "--m", "1,2", "--svg", path]);
    assert_eq!(fresh.status, 0, "{}", fresh.error);
    assert!(std::fs::read_to_string(&svg)
        .unwrap()
        .contains("256x128, mul1"));
}

#[test]
fn bench_refuses_files_that_hold_no_measurements() {
    let from = |path: &str| run(["bench", "--from-json", path]);
    from("no/such.json").assert_refused("no/such.json");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("other.json");
    std::fs::write(&path, "[{\"variant\": \"fused\"}]").unwrap();
    from(path.to_str().unwrap()).assert_refused("missing field");
    let stored = stored();
    let measured = ["bench", "--m", "4", "--from-json", stored.to_str().unwrap()];
    run(measured).assert_refused("--m");
}

#[test]
fn bench_refuses_what_the_format_does_not_have() {
    bench(&["--shape", "100x128"]).assert_refused("--shape");
    bench(&["--bits", "9"]).assert_refused("--bits");
    bench(&["--bits", "2.5", "--codebook", "mcg"]).assert_refused("mul1 only");
    bench(&["--codebook", "mul2"]).assert_refused("--codebook");
    bench(&["--m", "0"]).assert_refused("--m");
    bench(&["--residual", "f32"]).assert_refused("--residual");
    bench(&["--world", "9"]).assert_refused("--world");
    bench(&["--bytes", "5"]).assert_refused("--bytes");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    for args in [
        vec!["info"],
        vec!["--help"],
        vec!["inspect", model().to_str().unwrap()],
    ] {
        let mut command = command(&args);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert_eq!(String::from_utf8(output.stderr).unwrap(), "", "{args:?}");
    }
}

#[test]
fn help_and_version_are_no_errors() {
    for args in [["--help"].as_slice(), &["verify", "--help"], &["--version"]] {
        let run = run(args);
        assert_eq!((run.status, run.error.as_str()), (0, ""), "{args:?}");
        assert!(!run.out.is_empty());
    }
    run::<&str>([]).assert_refused("no command was given");
    run(["weigh"]).assert_refused("weigh");
}
