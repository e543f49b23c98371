//! With CUDA: a communicator of NCCL's, and a reader of weights.

use crate::device::Place;
use crate::nccl::{Communicator, Nccl};
use crate::ranks::Lane;
use crate::tensor::{Element, Tensor};
use anyhow::{Context as _, Result};
use std::sync::{Arc, Mutex, PoisonError};
use trellink::cuda::WeightReader;
use trellink::{AllReduce, Device, Epilogue, Rank, RowParallel};

/// What one rank has.
#[derive(Default)]
pub struct Kit {
    /// Locked, so that one call at a time is NCCL's as it wants it; nobody ever waits.
    nccl: Option<Mutex<Communicator>>,
    reader: Option<WeightReader>,
    /// Of a group of all ranks, while layers run in groups of one; locked as the communicator is.
    rank: Option<Mutex<Rank>>,
}

impl Kit {
    /// A kit for each rank: with a reader if wanted, and with a communicator if there is an NCCL.
    pub fn all(
        place: &Place,
        world: usize,
        reader: bool,
        nccl: Option<&Arc<Nccl>>,
    ) -> Result<Vec<Self>> {
        let ordinals: Vec<usize> = place.of_ranks(world).into_iter().filter_map(cuda).collect();
        let mut kits: Vec<Kit> = (0..world).map(|_| Kit::default()).collect();
        if let Some(nccl) = nccl {
            let communicators = nccl.communicators(&ordinals)?;
            for (kit, communicator) in kits.iter_mut().zip(communicators) {
                kit.nccl = Some(Mutex::new(communicator));
            }
        }
        if reader {
            for (kit, &ordinal) in kits.iter_mut().zip(&ordinals) {
                kit.reader = Some(WeightReader::load(ordinal)?);
            }
        }
        Ok(kits)
    }

    /// Takes a rank of a group of all ranks for [`own_sum`](Self::own_sum).
    pub fn reduce_with(&mut self, rank: Rank) {
        self.rank = Some(Mutex::new(rank));
    }

    /// Enqueues the crate's all-reduce of `out`, in place.
    pub fn own_sum<R: Element>(&self, lane: &Lane, out: &mut Tensor<R>) -> Result<()> {
        let rank = self
            .rank
            .as_ref()
            .context("this run has no rank to sum with")?;
        let mut rank = rank.lock().unwrap_or_else(PoisonError::into_inner);
        let out = out.output(lane, Epilogue::Store);
        Ok(AllReduce::new().run_in_place(&mut rank, lane.stream(), out)?)
    }

    /// Whether the exchanges of that rank went well.
    pub fn check(&self) -> Result<()> {
        let Some(rank) = &self.rank else {
            return Ok(());
        };
        let rank = rank.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(rank.check()?)
    }

    /// Enqueues NCCL's all-reduce: `out` = the sum over the ranks of `message`, or of `out` itself.
    pub fn nccl_sum<R: Element>(
        &self,
        lane: &Lane,
        message: Option<&mut Tensor<R>>,
        out: &mut Tensor<R>,
    ) -> Result<()> {
        let communicator = self.nccl.as_ref().context("this run has no NCCL")?;
        let mut communicator = communicator.lock().unwrap_or_else(PoisonError::into_inner);
        let (receive, count) = out.on_device(lane)?;
        let (send, sent) = match message {
            Some(message) => message.on_device(lane)?,
            None => (receive, count),
        };
        anyhow::ensure!(sent == count, "a message of {sent} values for {count}");
        let Lane::Cuda(stream) = lane else {
            anyhow::bail!("NCCL has no ranks on the host");
        };
        let (dtype, stream) = (<R as Element>::DTYPE, stream.cu_stream().cast());
        // SAFETY: both are tensors of `count` elements on this lane's device, made for peers by the only
        // caller, `Call`. They and the stream outlive what runs there: whoever makes calls waits for the
        // lanes of all ranks before it drops any rank's tensors. If a rank fails, the program ends.
        unsafe { communicator.all_reduce(send, receive, count, dtype, stream) }?;
        Ok(())
    }

    /// Enqueues a read of the layer's packed weights.
    pub fn read(&self, lane: &Lane, layer: &RowParallel) -> Result<()> {
        let reader = self.reader.as_ref().context("this run has no reader")?;
        Ok(reader.read(layer, lane.stream())?)
    }
}

fn cuda(device: Device) -> Option<usize> {
    match device {
        Device::Cuda(ordinal) => Some(ordinal),
        Device::Host => None,
    }
}
