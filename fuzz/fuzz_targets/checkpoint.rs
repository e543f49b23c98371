//! Any bytes, taken for a safetensors file, open or are refused; what opens can be read to its end.
//!
//! ```sh
//! mkdir -p fuzz/corpus/checkpoint
//! cargo +nightly fuzz run checkpoint fuzz/corpus/checkpoint fuzz/seeds/checkpoint -- \
//!     -dict=fuzz/json.dict -max_len=8192 -max_total_time=180
//! ```
//!
//! What it finds becomes a case of `tests/hostile`.

#![no_main]

use libfuzzer_sys::fuzz_target;
use trellink::Checkpoint;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(checkpoint) = Checkpoint::from_bytes("fuzz", bytes.to_vec()) {
        walk(&checkpoint);
    }
});

fn walk(checkpoint: &Checkpoint) {
    for name in checkpoint.tensor_names() {
        checkpoint.tensor(name).expect("a listed tensor");
    }
    for info in checkpoint.linears() {
        let linear = checkpoint.linear(&info.name).expect("a listed linear");
        let trellis = linear.trellis();
        for kt in 0..trellis.k_tiles() {
            for nt in 0..trellis.n_tiles() {
                assert_eq!(trellis.tile(kt, nt).len(), info.bits.tile_bytes());
            }
        }
        assert_eq!(linear.suh().to_vec().len(), info.k);
        assert_eq!(linear.svh().to_vec().len(), info.n);
        if let Some(bias) = linear.bias() {
            assert_eq!(bias.to_vec().len(), info.n);
        }
        linear.rows(info.k..info.k).expect("an empty shard");
        linear.columns(0..128).expect("a shard");
    }
}
