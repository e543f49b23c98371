//! A rank that stalls: the others get a typed error that names it, all reset the group, and go on.
//!
//! ```text
//! cargo run --example recovery
//! ```
//!
//! Two ranks on the host, a thread each. On GPUs a call only enqueues, so its failure shows in
//! `Rank::synchronize`, which is to be called where this example looks at what `forward` returned.

use half::f16;
use std::time::Duration;
use trellink::{Checkpoint, Error, Group, Input, Output, Rank, Result, RowParallel, Split, Stream};

const LAYERS: usize = 4;
const STALLED: usize = 1;

fn main() -> Result<()> {
    let model = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/data/models/austen-3bpw-mcg"
    );
    let checkpoint = Checkpoint::open(model)?;
    let ranks = Group::on_host(2).timeout(Duration::from_secs(1)).build()?;
    let outputs = std::thread::scope(|scope| {
        let spawn = |rank| scope.spawn(|| serve(rank, &checkpoint));
        let threads: Vec<_> = ranks.into_iter().map(spawn).collect();
        let joined = threads
            .into_iter()
            .map(|thread| thread.join().expect("no panic"));
        joined.collect::<Result<Vec<_>>>()
    })?;
    assert_eq!(outputs[0], outputs[1]);
    println!("both ranks have the same {} values", outputs[0].len());
    Ok(())
}

/// What every rank runs: requests until one has succeeded.
fn serve(mut rank: Rank, checkpoint: &Checkpoint) -> Result<Vec<f16>> {
    let load = |i| {
        let linear = checkpoint.linear(&format!("model.layers.{i}.mlp.down_proj"))?;
        let split = Split::even(linear.k(), rank.world())?;
        RowParallel::load(&rank, &linear, &split)
    };
    let layers = (0..LAYERS).map(load).collect::<Result<Vec<_>>>()?;
    let here = rank.rank();
    let mut stalls = here == STALLED;
    loop {
        match request(&mut rank, &layers, std::mem::take(&mut stalls)) {
            Ok(residual) => return Ok(residual),
            // `Mismatch` and `PeerAhead` can be reset, too, but come from a mistake in the program.
            Err(error @ Error::PeerTimeout { .. }) => println!("rank {here} is told: {error}"),
            Err(error) => return Err(error),
        }
        // Collective. Layers stay loaded; captured graphs would stay good.
        rank.reset()?;
        println!("rank {here}: the group works again");
    }
}

/// All layers in turn. A rank cannot know which calls still went well on the others, so after a failure
/// all begin the request anew, from its inputs: outputs of failed calls are of no use.
fn request(rank: &mut Rank, layers: &[RowParallel], stalls: bool) -> Result<Vec<f16>> {
    let mut residual = vec![f16::ONE; layers[0].n()];
    for (i, layer) in layers.iter().enumerate() {
        if stalls && i == LAYERS / 2 {
            // Something keeps this rank busy until the others have given up.
            while rank.check().is_ok() {
                std::thread::sleep(Duration::from_millis(10));
            }
        }
        let x = vec![f16::from_f32(0.5); layer.k()]; // stands for what the rest of the model computes
        let output = Output::add_to(&mut residual[..]);
        layer.forward(rank, Stream::host(), Input::from(&x[..]), output)?;
    }
    Ok(residual)
}
