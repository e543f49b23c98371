//! Ranks as processes, as launchers start them: they meet in a directory, and go on as threads would.
//!
//! ```text
//! cargo run --example processes
//! cargo run --features cuda --example processes -- cuda    # a GPU for each rank
//! ```
//!
//! The program starts itself once for each rank and compares what they print. On Linux only.

use half::f16;
use std::error::Error;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use trellink::{Checkpoint, Device, Group, Rank, RowParallel, Split};

const WORLD: usize = 2;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        [] => launch("host"),
        [kind @ ("host" | "cuda")] => launch(kind),
        ["rank", number, kind, meeting] => run(number.parse()?, kind, Path::new(meeting)),
        _ => Err("usage: processes [host|cuda]".into()),
    }
}

/// The launcher.
fn launch(kind: &str) -> Result<()> {
    // Private to the user, as the directory of a rendezvous must be. One job after another may use the same one.
    let folder = tempfile::tempdir()?;
    let start = |number: usize| -> Result<Child> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["rank", &number.to_string(), kind]);
        command.arg(folder.path().join("meeting"));
        Ok(command.stdout(Stdio::piped()).spawn()?)
    };
    let children = (0..WORLD).map(start).collect::<Result<Vec<_>>>()?;
    let mut told = Vec::new();
    for (number, child) in children.into_iter().enumerate() {
        let output = child.wait_with_output()?;
        if !output.status.success() {
            return Err(format!("rank {number}: {}", output.status).into());
        }
        told.push(String::from_utf8(output.stdout)?);
    }
    assert_eq!(told[0], told[1], "all ranks get the same bits");
    print!("{WORLD} ranks, each: {}", told[0]);
    Ok(())
}

/// One rank.
fn run(number: usize, kind: &str, meeting: &Path) -> Result<()> {
    // All processes describe the group alike.
    let devices = (0..WORLD).map(|rank| match kind {
        "cuda" => Device::Cuda(rank),
        _ => Device::Host,
    });
    let mut rank = join(Group::new(devices), number, meeting)?;
    let model = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/data/models/austen-3bpw-mcg"
    );
    let checkpoint = Checkpoint::open(model)?;
    let linear = checkpoint.linear("model.layers.0.mlp.down_proj")?;
    let layer = RowParallel::load(&rank, &linear, &Split::even(linear.k(), rank.world())?)?;
    let x = vec![f16::from_f32(0.5); layer.k()];
    let y = match rank.device() {
        Device::Host => on_host(&mut rank, &layer, &x)?,
        Device::Cuda(ordinal) => on_gpu(&mut rank, &layer, &x, ordinal)?,
    };
    let sum: f64 = y.iter().map(|value| value.to_f64()).sum();
    println!("{} values, their sum {sum:.6}", y.len());
    Ok(()) // the rank is dropped before its process ends: a farewell, not a loss
}

#[cfg(target_os = "linux")]
fn join(group: Group, number: usize, meeting: &Path) -> Result<Rank> {
    Ok(group.join(number, &trellink::Rendezvous::directory(meeting))?)
}

#[cfg(not(target_os = "linux"))]
fn join(_: Group, _: usize, _: &Path) -> Result<Rank> {
    Err("ranks in processes need Linux".into())
}

fn on_host(rank: &mut Rank, layer: &RowParallel, x: &[f16]) -> Result<Vec<f16>> {
    use trellink::{Input, Output, Stream};
    let mut y = vec![f16::ZERO; layer.n()];
    let output = Output::store(&mut y[..]);
    layer.forward(rank, Stream::host(), Input::from(x), output)?;
    Ok(y)
}

#[cfg(feature = "cuda")]
fn on_gpu(rank: &mut Rank, layer: &RowParallel, x: &[f16], ordinal: usize) -> Result<Vec<f16>> {
    use trellink::{Epilogue, Input, Output};
    let stream = cudarc::driver::CudaContext::new(ordinal)?.new_stream()?;
    let x = stream.clone_htod(x)?;
    let mut y = stream.alloc_zeros::<f16>(layer.n())?;
    let input = Input::device(&x, &stream);
    let output = Output::device(&mut y, &stream, Epilogue::Store);
    layer.forward(rank, (&stream).into(), input, output)?;
    rank.synchronize((&stream).into())?; // waits, and says whether the exchange went well
    Ok(stream.clone_dtoh(&y)?)
}

#[cfg(not(feature = "cuda"))]
fn on_gpu(_: &mut Rank, _: &RowParallel, _: &[f16], _: usize) -> Result<Vec<f16>> {
    Err("built without `--features cuda`".into())
}
