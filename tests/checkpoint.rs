//! Claims about opening real checkpoints and cutting their linears into shards.

mod common;

use half::f16;
use proptest::prelude::*;
use safetensors::tensor::{serialize, Dtype, TensorView};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use trellink::format::{Bits, Codebook, DType};
use trellink::weights::{Bias, Linear, Scales};
use trellink::{Checkpoint, Error};

fn data(name: &str) -> PathBuf {
    common::data().join(name)
}

/// Codebook and bitrate that a golden file's name states, `mul1_1.5bpw.safetensors`.
fn golden_kind(path: &Path) -> (Codebook, Bits) {
    let stem = path.file_stem().unwrap().to_str().unwrap();
    let (codebook, bits) = stem.split_once('_').unwrap();
    let bits = bits.strip_suffix("bpw").unwrap();
    (codebook.parse().unwrap(), bits.parse().unwrap())
}

fn golden_files() -> Vec<PathBuf> {
    let directory = std::fs::read_dir(data("golden")).unwrap();
    directory.map(|entry| entry.unwrap().path()).collect()
}

/// All bytes of the view, tile by tile.
fn tiles(linear: &Linear<'_>) -> Vec<Vec<Vec<u8>>> {
    let trellis = linear.trellis();
    let row = |kt| {
        let tile = |nt| trellis.tile(kt, nt).to_vec();
        (0..trellis.n_tiles()).map(tile).collect()
    };
    (0..trellis.k_tiles()).map(row).collect()
}

fn bits_of(scales: Scales<'_>) -> Vec<u16> {
    scales.iter().map(f16::to_bits).collect()
}

fn assert_same(a: &Linear<'_>, b: &Linear<'_>) {
    assert_eq!((a.name(), a.k(), a.n()), (b.name(), b.k(), b.n()));
    assert_eq!((a.bits(), a.codebook()), (b.bits(), b.codebook()));
    assert_eq!(tiles(a), tiles(b));
    assert_eq!(bits_of(a.suh()), bits_of(b.suh()));
    assert_eq!(bits_of(a.svh()), bits_of(b.svh()));
    assert_eq!(a.bias().map(|b| b.to_vec()), b.bias().map(|b| b.to_vec()));
}

#[test]
fn every_golden_file_opens_as_what_its_name_says() {
    let files = golden_files();
    assert_eq!(files.len(), 27);
    for path in files {
        let (codebook, bits) = golden_kind(&path);
        let checkpoint = Checkpoint::open(&path).unwrap();
        let [info] = checkpoint.linears() else {
            panic!("one linear in {}", path.display());
        };
        assert_eq!((info.name.as_str(), info.k, info.n), ("layer", 128, 256));
        assert_eq!((info.codebook, info.bits), (codebook, bits));
        assert_eq!(info.bias, None);
        assert_eq!(info.packed_bytes, 8 * 16 * bits.tile_bytes());
        assert_eq!(checkpoint.files().collect::<Vec<_>>(), [path.as_path()]);
    }
}

#[test]
fn views_show_the_bytes_of_the_file() {
    for path in golden_files() {
        let checkpoint = Checkpoint::open(&path).unwrap();
        let linear = checkpoint.linear("layer").unwrap();
        let trellis = checkpoint.tensor("layer.trellis").unwrap();
        assert_eq!(trellis.dtype(), "I16");
        assert_eq!(trellis.shape(), [8, 16, linear.bits().tile_words()]);
        assert_eq!(tiles(&linear).concat().concat(), trellis.bytes());
        assert_eq!(linear.packed_bytes(), trellis.bytes().len());
        for (scales, name) in [(linear.suh(), "layer.suh"), (linear.svh(), "layer.svh")] {
            let bytes: Vec<u8> = scales.iter().flat_map(f16::to_le_bytes).collect();
            assert_eq!(bytes, checkpoint.tensor(name).unwrap().bytes());
            assert!(!scales.is_signs());
        }
    }
}

#[test]
fn bytes_and_mapped_file_give_the_same_linear() {
    let path = data("golden/mul1_2.5bpw.safetensors");
    let mapped = Checkpoint::open(&path).unwrap();
    let owned = Checkpoint::from_bytes("memory", std::fs::read(&path).unwrap()).unwrap();
    assert_eq!(mapped.linears(), owned.linears());
    assert_same(
        &mapped.linear("layer").unwrap(),
        &owned.linear("layer").unwrap(),
    );
}

#[test]
fn the_small_model_has_the_layers_of_its_architecture() {
    // The directory holds a second safetensors file, which is none of the model's.
    let checkpoint = Checkpoint::open(data("models/austen-3bpw-mcg")).unwrap();
    let mut expected = vec![("lm_head".to_string(), 512, 384, "6")];
    for layer in 0..4 {
        for (part, k, n) in [
            ("mlp.down_proj", 1536, 512),
            ("mlp.gate_proj", 512, 1536),
            ("mlp.up_proj", 512, 1536),
            ("self_attn.k_proj", 512, 256),
            ("self_attn.o_proj", 512, 512),
            ("self_attn.q_proj", 512, 512),
            ("self_attn.v_proj", 512, 256),
        ] {
            expected.push((format!("model.layers.{layer}.{part}"), k, n, "3"));
        }
    }
    let found: Vec<_> = checkpoint
        .linears()
        .iter()
        .map(|info| {
            assert_eq!(info.codebook, Codebook::Mcg);
            (info.name.clone(), info.k, info.n, info.bits.to_string())
        })
        .collect();
    let expected: Vec<_> = expected
        .into_iter()
        .map(|(name, k, n, bits)| (name, k, n, bits.to_string()))
        .collect();
    assert_eq!(found, expected);
    assert_eq!(checkpoint.files().len(), 1);
    assert_eq!(checkpoint.tensor_names().len(), 126);
}

#[test]
fn info_and_linear_agree_for_every_layer_of_the_model() {
    let checkpoint = Checkpoint::open(data("models/austen-3bpw-mcg/model.safetensors")).unwrap();
    for info in checkpoint.linears() {
        let linear = checkpoint.linear(&info.name).unwrap();
        assert_eq!(linear.name(), info.name);
        assert_eq!((linear.k(), linear.n()), (info.k, info.n));
        assert_eq!(
            (linear.bits(), linear.codebook()),
            (info.bits, info.codebook)
        );
        assert_eq!(linear.packed_bytes(), info.packed_bytes);
        assert_eq!((linear.suh().len(), linear.svh().len()), (info.k, info.n));
        assert!(linear.bias().is_none());
    }
}

#[test]
fn a_name_that_is_not_there_is_answered_with_what_is() {
    let checkpoint = Checkpoint::open(data("models/austen-3bpw-mcg")).unwrap();
    let unknown = checkpoint.linear("model.layers.9.q").unwrap_err();
    assert!(matches!(unknown, Error::NotFound { .. }));
    assert!(
        unknown.to_string().contains("29, from `lm_head` on"),
        "{unknown}"
    );
    let plain = checkpoint
        .linear("model.embed_tokens")
        .unwrap_err()
        .to_string();
    assert!(
        plain.contains("`model.embed_tokens.weight` is there"),
        "{plain}"
    );
    let tensor = checkpoint.tensor("nothing").unwrap_err().to_string();
    assert!(tensor.contains("no tensor named `nothing`"), "{tensor}");
}

/// A linear of random-looking tensors, to be written to files.
struct Layer {
    k: usize,
    n: usize,
    bits: Bits,
    tensors: BTreeMap<&'static str, (Dtype, Vec<usize>, Vec<u8>)>,
}

impl Layer {
    fn new(k: usize, n: usize, bits: &str) -> Self {
        let bits: Bits = bits.parse().unwrap();
        let noise = |len: usize, seed: usize| -> Vec<u8> {
            (0..len)
                .map(|i| (i * 197 + seed * 61 + i / 251) as u8)
                .collect()
        };
        let trellis = noise(k / 16 * (n / 16) * bits.tile_bytes(), 1);
        let shape = vec![k / 16, n / 16, bits.tile_words()];
        let marker = 0x83DC_D12Du32.to_le_bytes().to_vec();
        let tensors = BTreeMap::from([
            ("trellis", (Dtype::I16, shape, trellis)),
            ("suh", (Dtype::F16, vec![k], noise(k * 2, 2))),
            ("svh", (Dtype::F16, vec![n], noise(n * 2, 3))),
            ("bias", (Dtype::F16, vec![n], noise(n * 2, 4))),
            ("mul1", (Dtype::I32, vec![], marker)),
        ]);
        Layer {
            k,
            n,
            bits,
            tensors,
        }
    }

    /// A safetensors file of those `parts` of the layer, which is called `name`.
    fn file(&self, name: &str, parts: &[&str]) -> Vec<u8> {
        let views = parts.iter().map(|part| {
            let (dtype, shape, bytes) = &self.tensors[part];
            let view = TensorView::new(*dtype, shape.clone(), bytes).unwrap();
            (format!("{name}.{part}"), view)
        });
        serialize(views, None).unwrap()
    }

    fn checkpoint(&self) -> Checkpoint {
        let parts: Vec<_> = self.tensors.keys().copied().collect();
        Checkpoint::from_bytes("memory", self.file("layer", &parts)).unwrap()
    }
}

#[test]
fn the_parts_of_a_linear_may_lie_in_several_files_of_an_index() {
    let layer = Layer::new(128, 256, "3.5");
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::write(
        path("a-2.safetensors"),
        layer.file("l", &["trellis", "bias"]),
    )
    .unwrap();
    std::fs::write(
        path("a-10.safetensors"),
        layer.file("l", &["suh", "svh", "mul1"]),
    )
    .unwrap();
    let index = r#"{"metadata": {"total_size": 1}, "weight_map": {
        "l.trellis": "a-2.safetensors", "l.bias": "a-2.safetensors",
        "l.suh": "a-10.safetensors", "l.svh": "a-10.safetensors", "l.mul1": "a-10.safetensors"}}"#;
    std::fs::write(path("model.safetensors.index.json"), index).unwrap();

    let files = [path("a-2.safetensors"), path("a-10.safetensors")];
    let whole = layer.checkpoint();
    let whole = whole.linear("layer").unwrap();
    for opened in [
        Checkpoint::open(directory.path()),
        Checkpoint::open(path("model.safetensors.index.json")),
        Checkpoint::open_files(&files),
    ] {
        let checkpoint = opened.unwrap();
        assert_eq!(checkpoint.files().collect::<Vec<_>>(), files);
        let linear = checkpoint.linear("l").unwrap();
        assert_eq!(linear.bias().unwrap().dtype(), DType::F16);
        assert_eq!(tiles(&linear), tiles(&whole));
    }

    std::fs::remove_file(path("model.safetensors.index.json")).unwrap();
    std::fs::write(path("._a-2.safetensors"), "resource fork").unwrap();
    let checkpoint = Checkpoint::open(directory.path()).unwrap();
    assert_eq!(checkpoint.files().collect::<Vec<_>>(), files);
}

#[test]
fn sign_bit_scales_one_element_markers_and_every_bias_dtype_are_read() {
    let mut layer = Layer::new(128, 256, "4");
    let signs: Vec<u8> = (0..16).map(|i| i * 17).collect();
    layer.tensors.remove("suh");
    layer
        .tensors
        .insert("su", (Dtype::I16, vec![8], signs.clone()));
    layer.tensors.get_mut("mul1").unwrap().1 = vec![1];
    for (stored, dtype) in [
        (Dtype::F16, DType::F16),
        (Dtype::BF16, DType::Bf16),
        (Dtype::F32, DType::F32),
    ] {
        let bytes = vec![0x40; 256 * dtype.size()];
        layer
            .tensors
            .insert("bias", (stored, vec![256], bytes.clone()));
        // Whatever an obsolete `scale` holds, it is ignored.
        layer
            .tensors
            .insert("scale", (Dtype::F64, vec![3, 0], vec![]));
        let checkpoint = layer.checkpoint();
        assert_eq!(checkpoint.linears()[0].bias, Some(dtype));
        let linear = checkpoint.linear("layer").unwrap();
        assert!(linear.suh().is_signs() && !linear.svh().is_signs());
        let bit = |i: usize| signs[i / 8] >> (i % 8) & 1;
        for i in 0..128 {
            assert_eq!(linear.suh().get(i).to_f32(), 1.0 - 2.0 * f32::from(bit(i)));
        }
        let bias = Bias::new(&bytes, dtype).unwrap();
        assert_eq!(linear.bias().unwrap().to_vec(), bias.to_vec());
    }
}

#[test]
fn a_checkpoint_without_exl3_linears_is_a_checkpoint() {
    let path = data("models/austen-3bpw-mcg/golden_logits.safetensors");
    let checkpoint = Checkpoint::open(path).unwrap();
    assert!(checkpoint.linears().is_empty());
    assert_eq!(checkpoint.tensor("logits").unwrap().shape(), [75, 384]);
    assert_eq!(checkpoint.tensor("logits").unwrap().dtype(), "F32");
    let error = checkpoint.linear("logits").unwrap_err().to_string();
    assert!(error.contains("none at all"), "{error}");
}

#[test]
fn seventy_thousand_tensors_open_at_once() {
    // Opening in quadratic time would take minutes here.
    let names: Vec<String> = (0..70_000)
        .map(|i| format!("model.layers.{i}.norm"))
        .collect();
    let view = || TensorView::new(Dtype::U8, vec![0], &[]).unwrap();
    let bytes = serialize(names.iter().map(|name| (name, view())), None).unwrap();
    let started = std::time::Instant::now();
    let checkpoint = Checkpoint::from_bytes("memory", bytes).unwrap();
    for name in &names {
        checkpoint.tensor(name).unwrap();
    }
    assert!(checkpoint
        .tensor_names()
        .eq(names.iter().map(String::as_str)));
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
}

#[test]
fn from_parts_refuses_what_does_not_fit() {
    let bits: Bits = "2".parse().unwrap();
    let trellis = vec![0; 8 * 16 * bits.tile_bytes()];
    let bytes = vec![0; 512];
    let scales = |channels: usize| Scales::from_f16_bytes(&bytes[..2 * channels]).unwrap();
    let build = |k, n, bits: &str, codebook, trellis_len: usize, suh, svh, bias: usize| {
        let bias = Bias::new(&bytes[..2 * bias], DType::Bf16).unwrap();
        Linear::from_parts(
            "up",
            k,
            n,
            bits.parse().unwrap(),
            codebook,
            &trellis[..trellis_len],
            scales(suh),
            scales(svh),
            Some(bias),
        )
        .map(|linear| (linear.k(), linear.n()))
        .map_err(|error| error.to_string())
    };
    use Codebook::{Mcg, Mul1};
    let all = trellis.len();
    assert_eq!(
        build(128, 256, "2", Mcg, all, 128, 256, 256),
        Ok((128, 256))
    );
    for (result, part) in [
        (build(0, 256, "2", Mcg, 0, 0, 256, 256), "`k`: found 0"),
        (build(64, 256, "2", Mcg, all, 64, 256, 256), "`k`: found 64"),
        (build(128, 0, "2", Mcg, 0, 128, 0, 0), "`n`: found 0"),
        (
            build(128, 250, "2", Mcg, all, 128, 250, 250),
            "`n`: found 250",
        ),
        (
            build(128, 256, "2.5", Mcg, all, 128, 256, 256),
            "2.5 bits with codebook mcg",
        ),
        (
            build(128, 256, "2.5", Mul1, all, 128, 256, 256),
            "`trellis`: found 8192 bytes",
        ),
        (
            build(128, 256, "2", Mcg, all - 2, 128, 256, 256),
            "`trellis`: found 8190 bytes",
        ),
        (
            build(128, 256, "2", Mcg, all, 127, 256, 256),
            "`suh`: found 127 channels",
        ),
        (
            build(128, 256, "2", Mcg, all, 128, 128, 256),
            "`svh`: found 128 channels",
        ),
        (
            build(128, 256, "2", Mcg, all, 128, 256, 0),
            "`bias`: found 0 channels",
        ),
    ] {
        let error = result.unwrap_err();
        assert!(error.contains(part), "`{part}` is not in `{error}`");
    }
}

#[test]
fn shard_bounds_off_the_grid_or_outside_are_refused() {
    let layer = Layer::new(256, 384, "1.5");
    let checkpoint = layer.checkpoint();
    let linear = checkpoint.linear("layer").unwrap();
    #[allow(clippy::reversed_empty_ranges)]
    let wrong = [0..64, 64..128, 0..512, 512..512, 128..0, 0..usize::MAX];
    for channels in wrong {
        for (shard, argument) in [
            (linear.rows(channels.clone()), "rows"),
            (linear.columns(channels.clone()), "columns"),
        ] {
            let error = shard.unwrap_err().to_string();
            let found = format!(
                "`{argument}`: found channels {}..{} of linear `layer`",
                channels.start, channels.end
            );
            assert!(error.contains(&found), "`{found}` is not in `{error}`");
        }
    }
}

/// A range of whole groups within `groups` groups, often empty.
fn group_range(groups: usize) -> impl Strategy<Value = Range<usize>> {
    (0..=groups, 0..=groups).prop_map(|(a, b)| a.min(b) * 128..a.max(b) * 128)
}

fn cut(groups: usize) -> impl Strategy<Value = usize> {
    (0..=groups).prop_map(|group| group * 128)
}

const K_GROUPS: usize = 3;
const N_GROUPS: usize = 4;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn row_shards_concatenate_to_the_whole(at in cut(K_GROUPS)) {
        let layer = Layer::new(K_GROUPS * 128, N_GROUPS * 128, "1.5");
        let checkpoint = layer.checkpoint();
        let whole = checkpoint.linear("layer").unwrap();
        let (a, b) = (whole.rows(0..at).unwrap(), whole.rows(at..layer.k).unwrap());
        prop_assert_eq!((a.k() + b.k(), a.n(), b.n()), (layer.k, layer.n, layer.n));
        prop_assert_eq!([tiles(&a), tiles(&b)].concat(), tiles(&whole));
        prop_assert_eq!([bits_of(a.suh()), bits_of(b.suh())].concat(), bits_of(whole.suh()));
        for shard in [a, b] {
            prop_assert_eq!(bits_of(shard.svh()), bits_of(whole.svh()));
            prop_assert_eq!(shard.bias(), whole.bias());
        }
    }

    #[test]
    fn column_shards_concatenate_to_the_whole(at in cut(N_GROUPS)) {
        let layer = Layer::new(K_GROUPS * 128, N_GROUPS * 128, "1");
        let checkpoint = layer.checkpoint();
        let whole = checkpoint.linear("layer").unwrap();
        let (a, b) = (whole.columns(0..at).unwrap(), whole.columns(at..layer.n).unwrap());
        prop_assert_eq!((a.n() + b.n(), a.k(), b.k()), (layer.n, layer.k, layer.k));
        let (left, right) = (tiles(&a), tiles(&b));
        let joined: Vec<_> = left.iter().zip(&right).map(|(l, r)| [&l[..], &r[..]].concat()).collect();
        prop_assert_eq!(joined, tiles(&whole));
        prop_assert_eq!([bits_of(a.svh()), bits_of(b.svh())].concat(), bits_of(whole.svh()));
        let words = |bias: Bias<'_>| bias.iter().map(f32::to_bits).collect::<Vec<_>>();
        let bias = |linear: &Linear<'_>| words(linear.bias().unwrap());
        prop_assert_eq!([bias(&a), bias(&b)].concat(), bias(&whole));
        prop_assert_eq!(bits_of(a.suh()), bits_of(whole.suh()));
    }

    #[test]
    fn cuts_along_k_and_n_commute_and_nest(
        k in group_range(K_GROUPS),
        n in group_range(N_GROUPS),
    ) {
        let layer = Layer::new(K_GROUPS * 128, N_GROUPS * 128, "1");
        let checkpoint = layer.checkpoint();
        let whole = checkpoint.linear("layer").unwrap();
        let rows_first = whole.rows(k.clone()).unwrap().columns(n.clone()).unwrap();
        let columns_first = whole.columns(n.clone()).unwrap().rows(k.clone()).unwrap();
        prop_assert_eq!(tiles(&rows_first), tiles(&columns_first));
        prop_assert_eq!((rows_first.k(), rows_first.n()), (k.len(), n.len()));
        let bytes = k.len() / 16 * (n.len() / 16) * layer.bits.tile_bytes();
        prop_assert_eq!(rows_first.packed_bytes(), bytes);
        for (kt, row) in tiles(&rows_first).iter().enumerate() {
            prop_assert_eq!(rows_first.trellis().tile_row(kt), row.concat());
            for (nt, tile) in row.iter().enumerate() {
                let same = whole.trellis().tile(k.start / 16 + kt, n.start / 16 + nt);
                prop_assert_eq!(same, &tile[..]);
            }
        }
        // An empty shard can be cut again, and a whole one to itself.
        let again = rows_first.rows(0..k.len()).unwrap().columns(0..n.len()).unwrap();
        prop_assert_eq!(tiles(&again), tiles(&rows_first));
    }
}
