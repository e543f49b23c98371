//! Tensors in the memory of the place where a rank runs, as inputs and outputs of its calls.

mod any;

pub use any::{AnyTensor, Numbers};

use crate::ranks::Lane;
use anyhow::Result;
use half::{bf16, f16};
#[cfg(feature = "cuda")]
use trellink::format::DType;
use trellink::{Epilogue, Input, Output};

/// What a device demands of an element type.
#[cfg(feature = "cuda")]
pub trait Storable:
    cudarc::driver::DeviceRepr + trellink::cuda::DeviceElement + trellink::cuda::DeviceOutputElement
{
}
#[cfg(feature = "cuda")]
impl<T> Storable for T where
    T: cudarc::driver::DeviceRepr
        + trellink::cuda::DeviceElement
        + trellink::cuda::DeviceOutputElement
{
}
/// What a device demands of an element type: without devices, nothing.
#[cfg(not(feature = "cuda"))]
pub trait Storable {}
#[cfg(not(feature = "cuda"))]
impl<T> Storable for T {}

/// Element types of outputs.
pub trait Element: Storable + Copy + Send + Sync + 'static {
    /// The type's name for those who take raw memory.
    #[cfg(feature = "cuda")]
    const DTYPE: DType;
    /// The value nearest to `value`.
    fn round(value: f32) -> Self;
    /// The value, which f32 can hold.
    fn widen(self) -> f32;
    /// An input in host memory.
    fn input(memory: &[Self]) -> Input<'_>;
    /// An output in host memory.
    fn output(memory: &mut [Self], epilogue: Epilogue) -> Output<'_>;
}

macro_rules! element {
    ($type:ty, $dtype:ident, $round:expr, $widen:expr) => {
        impl Element for $type {
            #[cfg(feature = "cuda")]
            const DTYPE: DType = DType::$dtype;
            fn round(value: f32) -> Self {
                $round(value)
            }
            fn widen(self) -> f32 {
                $widen(self)
            }
            fn input(memory: &[Self]) -> Input<'_> {
                Input::from(memory)
            }
            fn output(memory: &mut [Self], epilogue: Epilogue) -> Output<'_> {
                match epilogue {
                    Epilogue::Store => Output::store(memory),
                    Epilogue::Add => Output::add_to(memory),
                }
            }
        }
    };
}
element!(f16, F16, f16::from_f32, f16::to_f32);
element!(bf16, Bf16, bf16::from_f32, bf16::to_f32);
element!(f32, F32, |value| value, |value| value);

/// Values where a rank's calls find them.
pub struct Tensor<T> {
    memory: Memory<T>,
}

enum Memory<T> {
    Host(Vec<T>),
    #[cfg(feature = "cuda")]
    Device(cudarc::driver::CudaSlice<T>),
    /// A device allocates no empty memory.
    #[cfg(feature = "cuda")]
    NoneOnDevice,
}

impl<T: Element> Tensor<T> {
    /// A copy of `values` on the lane's device; on a GPU it may not have arrived yet.
    pub fn new(lane: &Lane, values: Vec<T>) -> Result<Self> {
        let memory = match lane {
            Lane::Host => Memory::Host(values),
            #[cfg(feature = "cuda")]
            Lane::Cuda(_) if values.is_empty() => Memory::NoneOnDevice,
            #[cfg(feature = "cuda")]
            Lane::Cuda(stream) => {
                let slice = driver("cuMemcpyHtoDAsync", stream.clone_htod(&values))?;
                // `values` is freed here, so the copy must be over.
                driver("cuStreamSynchronize", stream.synchronize())?;
                Memory::Device(slice)
            }
        };
        Ok(Tensor { memory })
    }

    /// [`new`](Self::new), in memory that other devices can reach once they have peer access. What
    /// `new` allocates comes from a pool, which is closed to them whatever access the devices have.
    pub fn for_peers(lane: &Lane, values: Vec<T>) -> Result<Self> {
        match lane {
            #[cfg(feature = "cuda")]
            Lane::Cuda(stream) if !values.is_empty() => {
                let mut slice = allocate_for_peers(stream, values.len())?;
                driver("cuMemcpyHtoDAsync", stream.memcpy_htod(&values, &mut slice))?;
                // `values` is freed here, so the copy must be over.
                driver("cuStreamSynchronize", stream.synchronize())?;
                let memory = Memory::Device(slice);
                Ok(Tensor { memory })
            }
            _ => Self::new(lane, values),
        }
    }

    /// The values, once everything that was enqueued on the lane is done.
    pub fn values(&self, lane: &Lane) -> Result<Vec<T>> {
        match (&self.memory, lane) {
            (Memory::Host(values), _) => Ok(values.clone()),
            #[cfg(feature = "cuda")]
            (Memory::NoneOnDevice, _) => Ok(Vec::new()),
            #[cfg(feature = "cuda")]
            (Memory::Device(slice), Lane::Cuda(stream)) => {
                let values = driver("cuMemcpyDtoHAsync", stream.clone_dtoh(slice))?;
                driver("cuStreamSynchronize", stream.synchronize())?;
                Ok(values)
            }
            #[cfg(feature = "cuda")]
            (Memory::Device(_), Lane::Host) => anyhow::bail!("a tensor of another rank"),
        }
    }

    /// Replaces the values by as many others, at the same address.
    pub fn write(&mut self, lane: &Lane, values: Vec<T>) -> Result<()> {
        match (&mut self.memory, lane) {
            (Memory::Host(memory), _) => *memory = values,
            #[cfg(feature = "cuda")]
            (Memory::NoneOnDevice, _) => {}
            #[cfg(feature = "cuda")]
            (Memory::Device(slice), Lane::Cuda(stream)) => {
                driver("cuMemcpyHtoDAsync", stream.memcpy_htod(&values, slice))?;
                // `values` is freed here, so the copy must be over.
                driver("cuStreamSynchronize", stream.synchronize())?;
            }
            #[cfg(feature = "cuda")]
            (Memory::Device(_), Lane::Host) => anyhow::bail!("a tensor of another rank"),
        }
        Ok(())
    }

    /// Its address on the lane's device, and its length in elements.
    #[cfg(feature = "cuda")]
    pub fn on_device(&mut self, lane: &Lane) -> Result<(u64, usize)> {
        use cudarc::driver::DevicePtrMut as _;
        match (&mut self.memory, lane) {
            // Nothing is recorded when the guard goes: lanes have their event tracking turned off.
            (Memory::Device(slice), Lane::Cuda(stream)) => {
                let len = slice.len();
                Ok((slice.device_ptr_mut(stream).0, len))
            }
            (Memory::NoneOnDevice, _) => Ok((0, 0)),
            (_, _) => anyhow::bail!("a tensor that is not on this rank's device"),
        }
    }

    /// As an output of a call on `lane`.
    pub fn output<'a>(&'a mut self, lane: &'a Lane, epilogue: Epilogue) -> Output<'a> {
        match (&mut self.memory, lane) {
            (Memory::Host(values), _) => T::output(values, epilogue),
            #[cfg(feature = "cuda")]
            (Memory::Device(slice), Lane::Cuda(stream)) => Output::device(slice, stream, epilogue),
            #[cfg(feature = "cuda")]
            // SAFETY: there is no element, so no memory is written.
            _ => unsafe { Output::device_raw(0, <T as Element>::DTYPE, 0, epilogue) },
        }
    }

    /// As the input of a call on `lane`.
    pub fn input<'a>(&'a self, lane: &'a Lane) -> Input<'a> {
        match (&self.memory, lane) {
            (Memory::Host(values), _) => T::input(values),
            #[cfg(feature = "cuda")]
            (Memory::Device(slice), Lane::Cuda(stream)) => Input::device(slice, stream),
            #[cfg(feature = "cuda")]
            // SAFETY: there is no element, so no memory is read.
            _ => unsafe { Input::device_raw(0, <T as Element>::DTYPE, 0) },
        }
    }
}

/// Uninitialised memory that belongs to no pool.
#[cfg(feature = "cuda")]
fn allocate_for_peers<T: Element>(
    stream: &std::sync::Arc<cudarc::driver::CudaStream>,
    len: usize,
) -> Result<cudarc::driver::CudaSlice<T>> {
    let context = stream.context();
    driver("cuCtxSetCurrent", context.bind_to_thread())?;
    let bytes = len * size_of::<T>();
    // SAFETY: `bytes` is not 0, and the stream's context is current.
    let pointer = unsafe { cudarc::driver::result::malloc_sync(bytes) };
    let pointer = driver("cuMemAlloc", pointer)?;
    // SAFETY: the memory was just allocated with room for `len` elements and has no other owner. It holds
    // whatever it held, which is a value of every element type: they are numbers. The slice frees it in
    // the order of the stream, as plain memory may be.
    Ok(unsafe { stream.upgrade_device_ptr(pointer, len) })
}

/// The library's error for a failed driver call.
#[cfg(feature = "cuda")]
pub fn driver<T>(call: &'static str, result: Result<T, cudarc::driver::DriverError>) -> Result<T> {
    result.map_err(|error| {
        let text = |text: Result<&std::ffi::CStr, _>| {
            text.map_or_else(
                |_| "unknown".into(),
                |text| text.to_string_lossy().into_owned(),
            )
        };
        trellink::Error::Cuda {
            call,
            code: error.0 as i32,
            name: text(error.error_name()),
            description: text(error.error_string()),
        }
        .into()
    })
}
