//! Delays on a device, of what there is: memory that is overwritten takes its time on a stream.

use crate::ranks::Lane;
use anyhow::Result;

/// Overwritten at a time: enough to take some microseconds.
#[cfg(feature = "cuda")]
const SCRATCH_MB: usize = 32;

/// Memory of a lane that is there to be overwritten; on the host there is none.
pub struct Brake {
    #[cfg(feature = "cuda")]
    scratch: Option<cudarc::driver::CudaSlice<u8>>,
}

impl Brake {
    /// Allocates.
    pub fn new(lane: &Lane) -> Result<Self> {
        #[cfg(feature = "cuda")]
        let scratch = match lane {
            Lane::Host => None,
            Lane::Cuda(stream) => {
                let scratch = stream.alloc_zeros(SCRATCH_MB << 20);
                Some(crate::tensor::driver("cuMemAllocAsync", scratch)?)
            }
        };
        #[cfg(not(feature = "cuda"))]
        let Lane::Host = lane;
        Ok(Brake {
            #[cfg(feature = "cuda")]
            scratch,
        })
    }

    /// Holds up what is enqueued on the lane from now on.
    pub fn on_stream(&mut self, lane: &Lane, megabytes: u32) -> Result<()> {
        #[cfg(feature = "cuda")]
        if let (Some(scratch), Lane::Cuda(stream)) = (&mut self.scratch, lane) {
            for _ in 0..(megabytes as usize).div_ceil(SCRATCH_MB) {
                crate::tensor::driver("cuMemsetD8Async", stream.memset_zeros(scratch))?;
            }
        }
        #[cfg(not(feature = "cuda"))]
        let (Lane::Host, _) = (lane, megabytes);
        Ok(())
    }
}
