//! Claims about `trellink soak`.

mod common;

use common::run;
use serde_json::Value;

/// A soak of ranks on the host.
fn soak(options: &str) -> common::Run {
    let fixed = ["soak", "--device", "host", "--seed", "11"];
    run(fixed.into_iter().chain(options.split_whitespace()))
}

fn number(json: &Value, field: &str) -> u64 {
    json[field]
        .as_u64()
        .unwrap_or_else(|| panic!("{field} in {json}"))
}

fn assert_good(options: &str, world: u64) {
    let json = soak(options).json(0);
    assert_eq!(number(&json, "world"), world);
    assert_eq!(number(&json, "seed"), 11);
    assert_eq!(json["passed"], true);
    for field in [
        "row_parallel",
        "all_reduce",
        "exchanges",
        "elements",
        "references",
        "rms_norm",
    ] {
        assert!(number(&json, field) > 0, "{field} in {json}");
    }
    let calls = ["row_parallel", "column_parallel", "all_reduce"];
    let calls: u64 = calls.into_iter().map(|field| number(&json, field)).sum();
    assert_eq!(number(&json, "calls"), calls);
    assert_eq!(number(&json, "seen"), number(&json, "provoked"));
    if world > 1 {
        assert!(number(&json, "provoked") > 0, "{json}");
    }
}

#[test]
fn threads_pass_and_their_failures_are_as_expected() {
    assert_good("--batches 12 --json", 3);
    assert_good("--batches 8 --world 1 --json", 1);
}

#[test]
#[cfg(target_os = "linux")]
fn processes_pass_and_their_failures_are_as_expected() {
    assert_good("--batches 12 --world 2 --processes --json", 2);
    assert_good("--batches 8 --world 1 --processes --json", 1);
}

/// A bit that one rank has wrong differs from what it must be, and from what the other ranks have.
fn assert_a_wrong_bit_is_noticed(options: &str) {
    let json = soak(&format!(
        "--seconds 20 --corrupt 1 --from-round 1 --json {options}"
    ))
    .json(1);
    assert_eq!(json["passed"], false);
    let mismatches = json["mismatches"].as_array().unwrap();
    let told = |text: &str| {
        mismatches
            .iter()
            .any(|m| m.as_str().unwrap().contains(text))
    };
    assert!(told("round 1, batch 0, rank 0: output 0 after"), "{json}");
    assert!(told("rank 1 differs from rank 0"), "{json}");
    assert!(
        number(&json, "batches") == 1,
        "it goes on no longer: {json}"
    );
}

#[test]
fn a_wrong_bit_of_a_thread_is_noticed() {
    assert_a_wrong_bit_is_noticed("");
    let text = soak("--seconds 20 --corrupt 0");
    assert_eq!(text.status, 1);
    assert!(text
        .out
        .ends_with("\nFAILED; --seed 11 repeats it, --from-round a round of it\n"));
}

#[test]
#[cfg(target_os = "linux")]
fn a_wrong_bit_of_a_process_is_noticed() {
    assert_a_wrong_bit_is_noticed("--processes");
}

/// Who hangs is told from who waits for it. If the others are not as far when the patience is at its end, more of
/// it is tried.
fn assert_a_hang_is_noticed(options: &str) {
    let noticed = [1.5, 6.0, 24.0, 96.0].into_iter().any(|patience| {
        let options = format!("--seconds 20 --stall 0 --patience {patience} --json {options}");
        let json = soak(&options).json(1);
        let hang = json["hang"].as_array().unwrap();
        let told: Vec<&str> = hang.iter().map(|text| text.as_str().unwrap()).collect();
        let [first, others @ ..] = &told[..] else {
            panic!("{json}");
        };
        let waited =
            |(rank, text): (usize, &&str)| *text == format!("rank {rank} waited for the others");
        let others_wait = others.len() == 2 && (1..).zip(others).all(waited);
        others_wait && first.starts_with("rank 0 has been") && first.ends_with("batch 0: preparing")
    });
    assert!(noticed);
}

#[test]
fn a_thread_that_hangs_is_noticed() {
    assert_a_hang_is_noticed("");
}

#[test]
#[cfg(target_os = "linux")]
fn a_process_that_hangs_is_noticed() {
    assert_a_hang_is_noticed("--processes");
}

#[test]
fn a_soak_ends_when_its_time_is_over() {
    for length in ["--seconds 0.5", "--minutes 0.01"] {
        let json = soak(&format!("{length} --world 1 --json")).json(0);
        assert!(number(&json, "batches") > 0, "{json}");
    }
}

/// As the parent starts it, but nobody answers.
#[test]
#[cfg(target_os = "linux")]
fn a_rank_whose_parent_has_gone_ends() {
    let args = "soak --device host --seed 11 --rank 1";
    let mut command = common::command(args.split(' '));
    let output = command.stdin(std::process::Stdio::null()).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("rank 1 could not join"));
}

#[test]
fn what_cannot_be_run_is_refused() {
    soak("--seconds 0").assert_refused("--seconds");
    soak("--minutes=-1").assert_refused("--minutes");
    soak("--minutes nan").assert_refused("--minutes");
    soak("--minutes 1 --seconds 1").assert_refused("--seconds");
    soak("--world 9").assert_refused("--world");
    soak("--rank 3").assert_refused("there is no rank 3");
    run(["soak", "--rank", "0"]).assert_refused("--seed");
}
