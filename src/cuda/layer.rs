//! One linear's shard on a device.

use super::memory::DeviceBuffer;
use super::rank::CudaRank;
use crate::ffi::TrellinkSegment;
use crate::format::layout::BlockLayout;
use crate::format::{Codebook, GROUP, TILE};
use crate::weights::Linear;
use crate::Result;
use half::f16;

/// Weights, scales and bias of a shard, in device memory and in the order kernels read them.
#[derive(Debug)]
pub(crate) struct CudaLinear {
    k: usize,
    n: usize,
    codebook: Codebook,
    half_bits: usize,
    blocks: DeviceBuffer,
    suh: DeviceBuffer,
    svh: DeviceBuffer,
    bias: Option<DeviceBuffer>,
}

impl CudaLinear {
    /// Packs and uploads a shard; complete when this returns.
    pub(crate) fn load(rank: &CudaRank, linear: &Linear<'_>) -> Result<Self> {
        let stream = rank.stream();
        let trellis = linear.trellis();
        let layout = BlockLayout::new(linear.bits());
        let blocks = layout.pack(linear.k(), linear.n(), |kt, nt| trellis.tile(kt, nt));
        let bias = linear.bias().map(|bias| bias.to_vec());
        Ok(CudaLinear {
            k: linear.k(),
            n: linear.n(),
            codebook: linear.codebook(),
            half_bits: linear.bits().half_bits(),
            blocks: DeviceBuffer::from_slice(stream, &blocks)?,
            suh: DeviceBuffer::from_slice::<f16>(stream, &linear.suh().to_vec())?,
            svh: DeviceBuffer::from_slice::<f16>(stream, &linear.svh().to_vec())?,
            bias: match bias {
                Some(bias) => Some(DeviceBuffer::from_slice(stream, &bias)?),
                None => None,
            },
        })
    }

    pub(crate) fn k(&self) -> usize {
        self.k
    }

    pub(crate) fn n(&self) -> usize {
        self.n
    }

    pub(crate) fn codebook(&self) -> Codebook {
        self.codebook
    }

    pub(crate) fn k_groups(&self) -> u32 {
        (self.k / GROUP) as u32
    }

    pub(crate) fn strips(&self) -> u32 {
        (self.n / TILE) as u32
    }

    /// The packed weights.
    pub(crate) fn blocks(&self) -> &DeviceBuffer {
        &self.blocks
    }

    /// This shard as the part of a launch that begins at `first_strip`; without its output.
    pub(crate) fn segment(&self, first_strip: u32) -> TrellinkSegment {
        TrellinkSegment {
            blocks: self.blocks.pointer(),
            suh: self.suh.pointer(),
            svh: self.svh.pointer(),
            bias: self.bias.as_ref().map_or(0, DeviceBuffer::pointer),
            first_strip,
            strips: self.strips(),
            codebook: self.codebook.number(),
            half_bits: self.half_bits as u32,
            ..Default::default()
        }
    }
}
