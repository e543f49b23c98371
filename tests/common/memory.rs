//! Memory of a rank, on the host or on its device, behind one trait.

use super::Values;
use std::ops::Range;
use trellink::{Epilogue, Input, Output, Stream};

/// Where a rank's inputs and outputs live, and the stream its calls run on.
pub trait Memory {
    /// New memory with a copy of `values`.
    fn buffer(&self, values: &Values) -> Box<dyn Buffer>;

    /// The stream of all calls and copies.
    fn stream(&self) -> Stream<'_>;

    /// Waits for all calls on the stream.
    fn synchronize(&self);

    /// The stream as cudarc has it; only on a CUDA rank.
    #[cfg(feature = "cuda")]
    fn cuda_stream(&self) -> &std::sync::Arc<cudarc::driver::CudaStream> {
        panic!("a rank on the host has no stream");
    }
}

/// Elements of one dtype in a rank's memory.
///
/// `write` and `read` wait for the stream; on a GPU that ranks share they belong where no
/// collective call is in flight.
pub trait Buffer {
    fn write(&mut self, values: &Values);

    fn read(&self) -> Values;

    /// Some of the elements as the input of a call.
    fn input(&self, elements: Range<usize>) -> Input<'_>;

    /// All elements as an output of a call.
    fn output(&mut self, epilogue: Epilogue) -> Output<'_>;
}

/// The host.
pub struct HostMemory;

impl Memory for HostMemory {
    fn buffer(&self, values: &Values) -> Box<dyn Buffer> {
        Box::new(values.clone())
    }

    fn stream(&self) -> Stream<'_> {
        Stream::host()
    }

    fn synchronize(&self) {}
}

impl Buffer for Values {
    fn write(&mut self, values: &Values) {
        assert_eq!((self.dtype(), self.len()), (values.dtype(), values.len()));
        *self = values.clone();
    }

    fn read(&self) -> Values {
        self.clone()
    }

    fn input(&self, elements: Range<usize>) -> Input<'_> {
        match self {
            Values::F16(v) => v[elements].into(),
            Values::Bf16(v) => v[elements].into(),
            Values::F32(v) => v[elements].into(),
        }
    }

    fn output(&mut self, epilogue: Epilogue) -> Output<'_> {
        let output: Output<'_> = match self {
            Values::F16(v) => v.as_mut_slice().into(),
            Values::Bf16(v) => v.as_mut_slice().into(),
            Values::F32(v) => v.as_mut_slice().into(),
        };
        match epilogue {
            Epilogue::Store => Output::store(output),
            Epilogue::Add => Output::add_to(output),
        }
    }
}

#[cfg(feature = "cuda")]
pub use device::DeviceMemory;

#[cfg(feature = "cuda")]
mod device {
    use super::{Buffer, Memory};
    use crate::common::Values;
    use cudarc::driver::{CudaContext, CudaSlice, CudaStream, DevicePtr, DeviceRepr};
    use half::{bf16, f16};
    use std::ops::Range;
    use std::sync::Arc;
    use trellink::format::DType;
    use trellink::{Epilogue, Input, Output, Stream};

    /// Memory of a device, and a stream of its own.
    pub struct DeviceMemory {
        stream: Arc<CudaStream>,
    }

    impl DeviceMemory {
        pub fn new(ordinal: usize) -> Self {
            let context = CudaContext::new(ordinal).unwrap();
            let stream = context.new_stream().unwrap();
            DeviceMemory { stream }
        }
    }

    impl Memory for DeviceMemory {
        fn buffer(&self, values: &Values) -> Box<dyn Buffer> {
            match values {
                Values::F16(v) => DeviceBuffer::boxed(&self.stream, v),
                Values::Bf16(v) => DeviceBuffer::boxed(&self.stream, v),
                Values::F32(v) => DeviceBuffer::boxed(&self.stream, v),
            }
        }

        fn stream(&self) -> Stream<'_> {
            Stream::from(&self.stream)
        }

        fn synchronize(&self) {
            self.stream.synchronize().unwrap();
        }

        fn cuda_stream(&self) -> &Arc<CudaStream> {
            &self.stream
        }
    }

    /// The dtype of a type, and vectors of it as [`Values`].
    trait Element: DeviceRepr + Copy + Default + 'static {
        const DTYPE: DType;
        fn values(v: Vec<Self>) -> Values;
        fn of(values: &Values) -> &[Self];
    }

    macro_rules! element {
        ($type:ty, $variant:ident) => {
            impl Element for $type {
                const DTYPE: DType = DType::$variant;
                fn values(v: Vec<Self>) -> Values {
                    Values::$variant(v)
                }
                fn of(values: &Values) -> &[Self] {
                    match values {
                        Values::$variant(v) => v,
                        other => panic!("{} in a buffer of {}", other.dtype(), Self::DTYPE),
                    }
                }
            }
        };
    }
    element!(f16, F16);
    element!(bf16, Bf16);
    element!(f32, F32);

    struct DeviceBuffer<T> {
        stream: Arc<CudaStream>,
        slice: CudaSlice<T>,
        len: usize,
        /// Asked for once: cudarc makes the stream wait for an event each time, which a stream
        /// that is being captured refuses.
        pointer: u64,
    }

    impl<T: Element> DeviceBuffer<T> {
        fn boxed(stream: &Arc<CudaStream>, values: &[T]) -> Box<dyn Buffer> {
            // An empty shard's memory has an address, too.
            let mut padded = values.to_vec();
            padded.resize(values.len().max(4), T::default());
            let slice = stream.clone_htod(&padded).unwrap();
            let (pointer, recorded) = slice.device_ptr(stream);
            drop(recorded);
            stream.synchronize().unwrap();
            Box::new(DeviceBuffer {
                stream: stream.clone(),
                slice,
                len: values.len(),
                pointer,
            })
        }
    }

    impl<T: Element> Buffer for DeviceBuffer<T> {
        fn write(&mut self, values: &Values) {
            let values = T::of(values);
            assert_eq!(values.len(), self.len);
            if !values.is_empty() {
                self.stream.memcpy_htod(values, &mut self.slice).unwrap();
                self.stream.synchronize().unwrap();
            }
        }

        fn read(&self) -> Values {
            let mut values = self.stream.clone_dtoh(&self.slice).unwrap();
            self.stream.synchronize().unwrap();
            values.truncate(self.len);
            T::values(values)
        }

        fn input(&self, elements: Range<usize>) -> Input<'_> {
            assert!(elements.start <= elements.end && elements.end <= self.len);
            let pointer = self.pointer + (elements.start * size_of::<T>()) as u64;
            // SAFETY: the elements lie in `slice`, which is of the rank's device. Its memory is
            // freed on the stream of all calls, after them; it is aligned to 256 bytes and no
            // other buffer overlaps it.
            unsafe { Input::device_raw(pointer, T::DTYPE, elements.len()) }
        }

        fn output(&mut self, epilogue: Epilogue) -> Output<'_> {
            // SAFETY: as above; `&mut` makes it the only use of the buffer in the call.
            unsafe { Output::device_raw(self.pointer, T::DTYPE, self.len, epilogue) }
        }
    }
}
