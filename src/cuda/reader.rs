//! Reading a layer's weights and nothing else: the floor that a layer's time is held against.

use super::call::{place_of, Site};
use super::driver::{context, error};
use super::kernels::{Kernels, Launch};
use super::memory::DeviceBuffer;
use crate::ffi::{TrellinkStream, TRELLINK_STREAM_CTAS_PER_SM, TRELLINK_STREAM_THREADS};
use crate::{Error, Result, RowParallel, Stream};
use cudarc::driver::sys;

/// Reads packed weights on one device, once and as fast as its memory gives them. For benchmarks: no
/// kernel that needs the weights can take less. Dropping a reader waits for its reads.
///
/// ```no_run
/// use trellink::{cuda::WeightReader, Result, RowParallel, Stream};
///
/// /// Enqueues a read of each layer's weights on a stream of the reader's device.
/// fn floor(reader: &WeightReader, layers: &[RowParallel], stream: Stream<'_>) -> Result<()> {
///     layers.iter().try_for_each(|layer| reader.read(layer, stream))
/// }
/// # let _ = WeightReader::load(0);
/// ```
#[derive(Debug)]
pub struct WeightReader {
    kernels: Kernels,
}

impl WeightReader {
    /// Loads the kernel on a device.
    ///
    /// # Errors
    /// [`CudaUnavailable`](Error::CudaUnavailable) without driver, device or kernel,
    /// [`Cuda`](Error::Cuda).
    pub fn load(ordinal: usize) -> Result<Self> {
        let kernels = Kernels::load(&context(ordinal)?)?;
        Ok(WeightReader { kernels })
    }

    /// Enqueues one read of the packed weights of `layer`: every byte of this rank's shard once, scales
    /// and bias not. All SMs take part.
    ///
    /// Not collective. As with a call of the layer, nothing is allocated or awaited, `stream` may be
    /// capturing, and reader and layer must outlive a graph that holds the read.
    ///
    /// # Errors
    /// [`InvalidArgument`](Error::InvalidArgument) if layer or stream are not on the reader's device,
    /// [`Cuda`](Error::Cuda).
    pub fn read(&self, layer: &RowParallel, stream: Stream<'_>) -> Result<()> {
        let site = Site::new(&stream, place_of(self.kernels.context()))?;
        let params = self.params(layer)?;
        // SAFETY: `params` names the memory of `layer` and, its mask being 0, nothing to be written;
        // the stream is of this device.
        unsafe { self.launch(&params, site.stream.raw) }
    }

    /// The XOR of the packed weights' 32-bit words, by the kernel of [`read`](Self::read): it is right
    /// only if that reads every word, and each an odd number of times. Synchronises.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn checksum(&self, layer: &RowParallel) -> Result<u32> {
        let stream = self.kernels.context().new_stream();
        let stream = stream.map_err(|e| error(e, "cuStreamCreate"))?;
        let sum = DeviceBuffer::from_slice(&stream, &[0u32])?;
        let params = TrellinkStream {
            sum: sum.pointer(),
            mask: u32::MAX,
            ..self.params(layer)?
        };
        // SAFETY: `sum` is a u32 that lives until the download below has synchronised, as `layer` does.
        unsafe { self.launch(&params, stream.cu_stream()) }?;
        sum.download_word(&stream)
    }

    fn ordinal(&self) -> usize {
        self.kernels.context().ordinal()
    }

    /// A read of the weights of `layer` that writes nothing.
    fn params(&self, layer: &RowParallel) -> Result<TrellinkStream> {
        let expected = self.ordinal();
        let blocks = match layer.on_cuda() {
            Some((ordinal, linear)) if ordinal == expected => linear.blocks(),
            found => {
                let found = found.map_or("the host".into(), |(at, _)| format!("CUDA device {at}"));
                let expected = format!("CUDA device {expected}, where the reader is");
                return Err(Error::argument("layer", found, expected));
            }
        };
        Ok(TrellinkStream {
            source: blocks.pointer(),
            // A block is 128 × 16 weights, at one bit 256 bytes: no remainder.
            chunks: (blocks.bytes() / 16) as u64,
            ..Default::default()
        })
    }

    /// # Safety
    /// The pointers of `params` must be valid until the kernel has run, the stream one of this device.
    unsafe fn launch(&self, params: &TrellinkStream, stream: sys::CUstream) -> Result<()> {
        let launch = Launch {
            grid: self.kernels.sm_count as u32 * TRELLINK_STREAM_CTAS_PER_SM,
            cluster: 1,
            threads: TRELLINK_STREAM_THREADS,
            shared_bytes: 0,
            stream,
            early: false,
        };
        // SAFETY: the stream kernel takes a TrellinkStream; the rest is the caller's.
        unsafe { self.kernels.launch(self.kernels.stream, launch, params) }
    }
}
