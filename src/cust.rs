//! Streams and device buffers of the `cust` crate as streams, inputs and outputs of a call:
//! [`Stream::from_cust`], [`Input::from_cust`], [`Output::from_cust`].
//!
//! cust and this crate call the same driver and share its handles; nothing is copied. All three
//! functions are `unsafe`, because nothing in cust's types shows what they need:
//!
//! - **The context.** Ranks live in their device's *primary* context, as everything in
//!   `cust::context` does. What was made in a context of `cust::context::legacy`, or in any other
//!   context, has its own address space: the driver refuses such a stream, and a kernel that touches
//!   such a buffer dies of an illegal address and takes the context with it.
//!   Everything here that touches a GPU makes the primary context of the rank's device current on the
//!   calling thread, and leaves it so. cust allocates in whichever context is current: a thread that serves ranks
//!   on several devices sets it again after a call (`CurrentContext::set_current`).
//! - **The time.** A call returns when it is enqueued. The borrow of a buffer ends with the call,
//!   but kernels use the buffer until the stream has run it.
//!
//! cust has no 16-bit floating-point type without a feature of its own, so buffers come with a
//! [`DType`]: a `DeviceBuffer<u16>`, or one of bytes, may hold f16 or bf16.
//!
//! ```no_run
//! use ::cust::{memory::DeviceBuffer, stream};
//! use trellink::format::DType;
//! use trellink::{Checkpoint, Device, Epilogue, Group, Input, Output, RowParallel, Split, Stream};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let _context = ::cust::quick_init()?; // the primary context of device 0
//! let mut rank = Group::new([Device::Cuda(0)]).build()?.remove(0);
//! let checkpoint = Checkpoint::open("model")?;
//! let down = checkpoint.linear("model.layers.0.mlp.down_proj")?;
//! let layer = RowParallel::load(&rank, &down, &Split::even(down.k(), 1)?)?;
//!
//! let stream = stream::Stream::new(stream::StreamFlags::DEFAULT, None)?;
//! let x = DeviceBuffer::<u16>::zeroed(layer.k())?;
//! let mut residual = DeviceBuffer::<u16>::zeroed(layer.n())?;
//! // SAFETY: all three are of the primary context of the rank's device, and are kept until the
//! // stream has been synchronised.
//! unsafe {
//!     layer.forward(
//!         &mut rank,
//!         Stream::from_cust(&stream),
//!         Input::from_cust(&x, DType::Bf16)?,
//!         Output::from_cust(&mut residual, DType::Bf16, Epilogue::Add)?,
//!     )?;
//! }
//! stream.synchronize()?;
//! rank.check()?;
//! # Ok(())
//! # }
//! ```

use crate::format::DType;
use crate::{Epilogue, Error, Input, Output, Result, Stream};
use ::cust::memory::{DeviceCopy, DeviceSlice};

impl<'a> Stream<'a> {
    /// A stream of cust.
    ///
    /// # Safety
    /// The stream must have been made in the primary context of the rank's device
    /// ([why](crate::cust)).
    pub unsafe fn from_cust(stream: &'a ::cust::stream::Stream) -> Self {
        // SAFETY: device and context are the caller's; the borrow keeps the stream alive.
        unsafe { Stream::cuda_raw(stream.as_inner().cast()) }
    }
}

impl<'a> Input<'a> {
    /// Activations in a buffer of cust, or a slice of one, whose bytes are elements of `dtype`: f16
    /// or bf16.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the buffer does not hold whole elements.
    ///
    /// # Safety
    /// The buffer must be of the primary context of the rank's device ([why](crate::cust)). Until
    /// the call has run on its stream (for a captured call: whenever its graph runs) it must live
    /// and not be written, and it must not overlap any of the call's outputs.
    pub unsafe fn from_cust<T: DeviceCopy>(x: &'a DeviceSlice<T>, dtype: DType) -> Result<Self> {
        let len = elements("x", x, dtype)?;
        // SAFETY: handed on to the caller.
        Ok(unsafe { Input::device_raw(x.as_device_ptr().as_raw(), dtype, len) })
    }
}

impl<'a> Output<'a> {
    /// An output in a buffer of cust, or a slice of one, whose bytes are elements of `dtype`.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] if the buffer does not hold whole elements.
    ///
    /// # Safety
    /// As [`Input::from_cust`], and nobody else may read or write the buffer until the call has run.
    pub unsafe fn from_cust<T: DeviceCopy>(
        out: &'a mut DeviceSlice<T>,
        dtype: DType,
        epilogue: Epilogue,
    ) -> Result<Self> {
        let len = elements("out", out, dtype)?;
        // SAFETY: handed on to the caller.
        Ok(unsafe { Output::device_raw(out.as_device_ptr().as_raw(), dtype, len, epilogue) })
    }
}

/// The elements of `dtype` in a buffer.
fn elements<T: DeviceCopy>(
    argument: &'static str,
    buffer: &DeviceSlice<T>,
    dtype: DType,
) -> Result<usize> {
    let bytes = buffer.len() * size_of::<T>();
    if bytes.is_multiple_of(dtype.size()) {
        return Ok(bytes / dtype.size());
    }
    Err(Error::argument(
        argument,
        format!("{bytes} bytes"),
        format!("whole elements of {dtype}, {} bytes each", dtype.size()),
    ))
}
