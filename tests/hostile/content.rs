//! One case per fault inside a file: its frame, its header, the parts of its linears.

use super::builder::{framed, Builder};
use super::{assert_refused, open, walk};
use trellink::Error;

#[test]
fn the_unbroken_file_opens() {
    let checkpoint = open(Builder::valid().build()).unwrap();
    assert_eq!(checkpoint.linears().len(), 1);
    walk(&checkpoint);
}

#[test]
fn files_too_short_for_a_header_length_are_refused() {
    for len in 0..8 {
        let found = format!("found {len} bytes");
        assert_refused(
            open(vec![0; len]),
            &["hostile.safetensors", &found, "8-byte"],
        );
    }
}

#[test]
fn absurd_header_lengths_are_refused() {
    for length in [1, 3, 100_000_001, u64::MAX / 2, u64::MAX - 7, u64::MAX] {
        let found = format!("header length of {length} bytes");
        assert_refused(open(length.to_le_bytes().to_vec()), &[&found]);
    }
    assert_refused(open(vec![0; 8]), &["header is invalid"]);
}

#[test]
fn headers_that_are_no_json_object_are_refused() {
    let deep = "[".repeat(100_000);
    for header in [
        &b"\xFF\xFE{}"[..],
        b"{",
        b"[]",
        b"null",
        b"{}x",
        b"\0\0",
        deep.as_bytes(),
    ] {
        assert_refused(
            open(framed(header, &[])),
            &["hostile.safetensors", "header is invalid"],
        );
    }
}

#[test]
fn header_entries_of_the_wrong_form_name_their_tensor() {
    for entry in [
        "7",
        "null",
        "{}",
        r#"{"dtype":"I16","shape":[1]}"#,
        r#"{"dtype":"X9","shape":[1],"data_offsets":[0,2]}"#,
        r#"{"dtype":"I16","shape":[-1],"data_offsets":[0,2]}"#,
        r#"{"dtype":"I16","shape":[1.5],"data_offsets":[0,2]}"#,
        r#"{"dtype":"I16","shape":[1e99],"data_offsets":[0,2]}"#,
        r#"{"dtype":"I16","shape":[1],"data_offsets":[0]}"#,
        r#"{"dtype":"I16","shape":[99999999999999999999],"data_offsets":[0,2]}"#,
    ] {
        let header = format!(r#"{{"a.b":{entry}}}"#);
        let error = open(framed(header.as_bytes(), &[0; 2]));
        assert_refused(
            error,
            &["tensor `a.b`", "expected dtype, shape and data_offsets"],
        );
    }
}

#[test]
fn faults_in_huge_names_values_and_shapes_are_quoted_in_part() {
    let long = "ä".repeat(100_000);
    let value = framed(format!(r#"{{"a":"{long}"}}"#).as_bytes(), &[]);
    let name = framed(format!(r#"{{"{long}":7}}"#).as_bytes(), &[]);
    let shape = Builder::empty().zeros("a", "F16", &[0; 100_000], 2).build();
    let trellis = Builder::empty()
        .zeros("a.trellis", "I16", &[1; 100_000], 2)
        .build();
    for file in [value, name, shape, trellis] {
        let error = assert_refused(open(file), &["hostile.safetensors: tensor `", "..."]);
        assert!(error.to_string().chars().count() < 1000);
    }
}

#[test]
fn overlapping_and_scattered_tensors_are_refused() {
    let two = |offsets| {
        Builder::empty()
            .zeros("a", "U8", &[4], 4)
            .entry("b", "U8", &[4], offsets)
    };
    let overlap = two([2, 6]);
    assert_refused(
        open(overlap.build()),
        &["tensor `b`", "[2, 6]", "a start at 4"],
    );
    let gap = two([5, 9]);
    assert_refused(open(gap.build()), &["tensor `b`", "[5, 9]", "a start at 4"]);
    let reversed = two([4, 0]);
    assert_refused(open(reversed.build()), &["tensor `b`", "[4, 0]", "4 bytes"]);
}

#[test]
fn offsets_that_do_not_fit_dtype_and_shape_are_refused() {
    let file = Builder::empty().zeros("a", "F16", &[3], 4);
    assert_refused(
        open(file.build()),
        &["tensor `a`", "[0, 4] for F16 of shape [3]", "6 bytes"],
    );
    let half_a_byte = Builder::empty().zeros("a", "F4", &[3], 2);
    assert_refused(
        open(half_a_byte.build()),
        &["tensor `a`", "F4 of shape [3]"],
    );
}

#[test]
fn shapes_whose_product_overflows_are_refused() {
    for shape in [
        vec![u64::MAX],
        vec![1 << 32, 1 << 32],
        vec![u64::MAX, u64::MAX, 2],
    ] {
        let file = Builder::empty().entry("a", "F16", &shape, [0, 4]);
        assert_refused(
            open(file.build()),
            &["tensor `a`", &format!("{shape:?}"), "overflow"],
        );
    }
}

#[test]
fn ends_of_data_near_the_largest_integer_are_refused() {
    // Each tensor's size is possible on its own; the sum of the last end and the header's length
    // is what overflows.
    let mut file = Builder::empty();
    let size = (1 << 61) - 1;
    for i in 0..8 {
        file = file.entry(&format!("t{i}"), "U8", &[size], [i * size, (i + 1) * size]);
    }
    let rest = u64::MAX - 8 * size;
    file = file.entry("t8", "U8", &[rest], [8 * size, u64::MAX]);
    assert_refused(
        open(file.build()),
        &["tensor `t0`", "within the 0 bytes", "truncated"],
    );
}

#[test]
fn truncated_and_overlong_files_are_refused() {
    let whole = Builder::valid().build();
    for len in 0..whole.len() {
        assert!(open(whole[..len].to_vec()).is_err(), "cut to {len} bytes");
    }
    let cut = whole[..whole.len() - 1].to_vec();
    assert_refused(
        open(cut),
        &["tensor `a.q.mcg`", "data up to byte 9476", "truncated"],
    );
    let long = [&whole[..], &[0]].concat();
    assert_refused(open(long), &["found 9477 bytes of data, expected the 9476"]);
}

#[test]
fn every_part_of_a_linear_is_required() {
    for part in ["suh", "svh"] {
        let name = format!("a.q.{part}");
        let error = assert_refused(
            open(Builder::valid().without(&name).build()),
            &[
                "hostile.safetensors",
                &format!("tensor `{name}` is missing"),
            ],
        );
        assert!(matches!(error, Error::MissingTensor { .. }));
    }
    // Bias and marker are optional: without the marker the codebook is 3inst.
    let optional = Builder::valid().without("a.q.bias").without("a.q.mcg");
    let checkpoint = open(optional.build()).unwrap();
    assert_eq!(checkpoint.linears()[0].codebook.name(), "3inst");
    assert_eq!(checkpoint.linears()[0].bias, None);
}

#[test]
fn parts_without_a_trellis_are_refused() {
    let orphans = Builder::valid().without("a.q.trellis");
    assert_refused(
        open(orphans.build()),
        &["`a.q.trellis` is missing", "There is `a.q.mcg`"],
    );
    for part in ["suh", "svh", "mcg", "mul1"] {
        let file = Builder::empty().zeros(&format!("x.{part}"), "U8", &[1], 1);
        assert_refused(
            open(file.build()),
            &["`x.trellis` is missing", &format!("x.{part}")],
        );
    }
}

/// A part of the valid linear, replaced by what is refused with a text that names it and has the
/// two given pieces.
type Wrong = (
    &'static str,
    &'static str,
    &'static [u64],
    usize,
    [&'static str; 2],
);

fn assert_each_refused(cases: &[Wrong]) {
    for (part, dtype, shape, bytes, [found, expected]) in cases {
        let name = format!("a.q.{part}");
        let file = Builder::valid().replace(&name, dtype, shape, *bytes);
        let tensor = format!("tensor `{name}`");
        assert_refused(
            open(file.build()),
            &[
                "hostile.safetensors",
                &tensor,
                &format!("found {found}"),
                expected,
            ],
        );
    }
}

#[test]
fn wrong_dtypes_are_refused() {
    assert_each_refused(&[
        (
            "trellis",
            "U16",
            &[8, 16, 32],
            8192,
            ["dtype U16", "dtype I16"],
        ),
        (
            "trellis",
            "F16",
            &[8, 16, 32],
            8192,
            ["dtype F16", "dtype I16"],
        ),
        ("suh", "BF16", &[128], 256, ["dtype BF16", "dtype F16"]),
        ("svh", "F32", &[256], 1024, ["dtype F32", "dtype F16"]),
        (
            "bias",
            "F64",
            &[256],
            2048,
            ["dtype F64", "F16 or BF16 or F32"],
        ),
        ("mcg", "U32", &[], 4, ["dtype U32", "dtype I32"]),
        ("mcg", "I64", &[], 8, ["dtype I64", "dtype I32"]),
    ]);
}

#[test]
fn wrong_shapes_are_refused() {
    assert_each_refused(&[
        (
            "trellis",
            "I16",
            &[],
            2,
            ["shape []", "[K/16, N/16, 16·bits]"],
        ),
        (
            "trellis",
            "I16",
            &[8, 512],
            8192,
            ["shape [8, 512]", "[K/16, N/16, 16·bits]"],
        ),
        (
            "trellis",
            "I16",
            &[8, 16, 32, 1],
            8192,
            ["shape [8, 16, 32, 1]", "16·bits]"],
        ),
        ("suh", "F16", &[256], 512, ["shape [256]", "shape [128]"]),
        (
            "suh",
            "F16",
            &[1, 128],
            256,
            ["shape [1, 128]", "shape [128]"],
        ),
        ("suh", "F16", &[], 2, ["shape []", "shape [128]"]),
        ("svh", "F16", &[128], 256, ["shape [128]", "shape [256]"]),
        ("bias", "F32", &[255], 1020, ["shape [255]", "shape [256]"]),
        ("bias", "F16", &[0], 0, ["shape [0]", "shape [256]"]),
        ("mcg", "I32", &[2], 8, ["shape [2]", "shape []"]),
        ("mcg", "I32", &[0], 0, ["shape [0]", "shape []"]),
        ("mcg", "I32", &[1, 1], 4, ["shape [1, 1]", "shape []"]),
    ]);
}

#[test]
fn dimensions_off_the_grid_of_128_channels_are_refused() {
    let expected = "positive multiples of 128";
    assert_each_refused(&[
        (
            "trellis",
            "I16",
            &[7, 16, 32],
            7168,
            ["shape [7, 16, 32]", expected],
        ),
        (
            "trellis",
            "I16",
            &[8, 12, 32],
            6144,
            ["shape [8, 12, 32]", expected],
        ),
        (
            "trellis",
            "I16",
            &[0, 16, 32],
            0,
            ["shape [0, 16, 32]", expected],
        ),
        (
            "trellis",
            "I16",
            &[8, 0, 32],
            0,
            ["shape [8, 0, 32]", expected],
        ),
        // 16 times the first dimension overflows, although the tensor is empty.
        (
            "trellis",
            "I16",
            &[1 << 58, 0, 32],
            0,
            ["shape [288230376151711744, 0, 32]", expected],
        ),
    ]);
}

#[test]
fn tiles_of_a_bitrate_that_does_not_exist_are_refused() {
    for words in [0u64, 1, 8, 17, 31, 33, 72, 120, 144, 1 << 20] {
        let bytes = 64 * words as usize * 2;
        let file = Builder::valid().replace("a.q.trellis", "I16", &[8, 8, words], bytes);
        let found = format!("found shape [8, 8, {words}]");
        assert_refused(
            open(file.build()),
            &["`a.q.trellis`", &found, "1.5, 2.5, 3.5"],
        );
    }
}

#[test]
fn half_bits_are_refused_without_mul1() {
    for (words, bits) in [(24, "1.5"), (40, "2.5"), (56, "3.5")] {
        let bytes = 8 * 16 * words as usize * 2;
        let mcg = Builder::valid().replace("a.q.trellis", "I16", &[8, 16, words], bytes);
        let found = format!("found {bits} bits with codebook mcg");
        assert_refused(open(mcg.build()), &["`a.q.trellis`", &found, "mul1 only"]);
        let three_inst = mcg.without("a.q.mcg");
        let found = format!("found {bits} bits with codebook 3inst");
        assert_refused(open(three_inst.build()), &["`a.q.trellis`", &found]);
        let marker = 0x83DC_D12Du32.to_le_bytes();
        let mul1 = three_inst.tensor("a.q.mul1", "I32", &[], &marker);
        assert_eq!(
            open(mul1.build()).unwrap().linears()[0].bits.to_string(),
            bits
        );
    }
}

#[test]
fn two_markers_are_refused() {
    let file = Builder::valid().zeros("a.q.mul1", "I32", &[], 4);
    assert_refused(
        open(file.build()),
        &["`a.q.mcg`", "`a.q.mul1`", "one marker at most"],
    );
}

#[test]
fn a_marker_of_another_value_is_refused_as_experimental() {
    let file = Builder::valid().without("a.q.mcg").tensor(
        "a.q.mcg",
        "I32",
        &[],
        &0x83DC_D12Du32.to_le_bytes(),
    );
    let parts = [
        "`a.q.mcg`",
        "0x83DCD12D",
        "experimental",
        "expected 0xCBAC1FED",
    ];
    assert_refused(open(file.build()), &parts);
    let zero = Builder::valid().replace("a.q.mcg", "I32", &[1], 4);
    assert_refused(
        open(zero.build()),
        &["found 0x00000000, as in experimental"],
    );
}

#[test]
fn values_and_sign_bits_together_are_refused() {
    for (half, signs, words) in [("suh", "su", 8), ("svh", "sv", 16)] {
        let name = format!("a.q.{signs}");
        let file = Builder::valid().zeros(&name, "I16", &[words], 2 * words as usize);
        let tensor = format!("tensor `a.q.{half}`");
        assert_refused(
            open(file.build()),
            &[&tensor, &format!("`{name}` beside it"), "not both"],
        );
    }
}

#[test]
fn sign_bits_of_the_wrong_dtype_or_length_are_refused() {
    let signs = |dtype, words: u64, bytes| {
        let file = Builder::valid().without("a.q.suh");
        open(file.zeros("a.q.su", dtype, &[words], bytes).build())
    };
    assert!(signs("I16", 8, 16).is_ok());
    assert_refused(
        signs("I16", 128, 256),
        &["`a.q.su`", "shape [128]", "shape [8]"],
    );
    assert_refused(signs("F16", 8, 16), &["`a.q.su`", "dtype F16", "dtype I16"]);
}

#[test]
fn an_obsolete_scale_is_ignored() {
    let file = Builder::valid().zeros("a.q.scale", "BOOL", &[3, 1], 3);
    assert_eq!(open(file.build()).unwrap().linears().len(), 1);
}

#[test]
fn names_without_a_layer_are_harmless() {
    let file = Builder::empty()
        .zeros("trellis", "U8", &[1], 1)
        .zeros("", "U8", &[1], 1);
    assert!(open(file.build()).unwrap().linears().is_empty());
    assert_refused(
        open(Builder::empty().zeros(".trellis", "U8", &[1], 1).build()),
        &["tensor `.trellis`", "dtype U8"],
    );
}
