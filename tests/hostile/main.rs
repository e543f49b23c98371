//! Claims about broken and hostile checkpoints: each kind of fault is refused with a text that says
//! where it is and what was found, and no bytes whatever make opening or reading panic.

mod builder;
mod content;
mod files;
mod mutations;

use trellink::{Checkpoint, Error};

/// Opens `bytes` as the file `hostile.safetensors`.
fn open(bytes: Vec<u8>) -> trellink::Result<Checkpoint> {
    Checkpoint::from_bytes("hostile.safetensors", bytes)
}

/// Asserts that opening failed with a text that has each of `parts`.
fn assert_refused(result: trellink::Result<Checkpoint>, parts: &[&str]) -> Error {
    let error = result.expect_err("should be refused");
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in `{text}`");
    }
    error
}

/// Reads everything that a checkpoint offers.
fn walk(checkpoint: &Checkpoint) {
    for name in checkpoint.tensor_names() {
        let tensor = checkpoint.tensor(name).expect("a listed tensor");
        std::hint::black_box(tensor.bytes().iter().fold(0u8, |x, y| x ^ y));
    }
    for info in checkpoint.linears() {
        let linear = checkpoint.linear(&info.name).expect("a listed linear");
        assert_eq!((linear.k(), linear.n()), (info.k, info.n));
        let trellis = linear.trellis();
        for kt in 0..trellis.k_tiles() {
            for nt in 0..trellis.n_tiles() {
                assert_eq!(trellis.tile(kt, nt).len(), info.bits.tile_bytes());
            }
        }
        assert_eq!(linear.suh().to_vec().len(), info.k);
        assert_eq!(linear.svh().to_vec().len(), info.n);
        assert_eq!(linear.bias().map(|bias| bias.dtype()), info.bias);
        assert!(linear
            .bias()
            .is_none_or(|bias| bias.to_vec().len() == info.n));
        linear.rows(info.k..info.k).expect("an empty shard");
        linear.columns(0..128).expect("a shard");
    }
}
