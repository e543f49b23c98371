//! The embedded kernels, loaded into a context.
//!
//! Every kernel is loaded and configured before the first collective call: lazy loading could
//! otherwise wait behind a kernel that waits for this rank.

use super::driver::{attribute, bind, check, error, synchronize_context};
use crate::code::Abilities;
use crate::ffi::{TrellinkLinear, TRELLINK_LINEAR_THREADS};
use crate::format::DType;
use crate::plan::{LaunchShape, LinearKernel, TransformShape};
use crate::{Error, Result};
use cudarc::driver::sys::{self, CUdevice_attribute, CUfunction_attribute};
use cudarc::driver::CudaContext;
use std::ffi::{c_void, CString};
use std::mem::MaybeUninit;
use std::sync::Arc;

include!(concat!(env!("OUT_DIR"), "/fatbins.rs"));

/// A kernel that is ready to launch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kernel {
    function: sys::CUfunction,
    /// Dynamic shared memory it may be launched with.
    max_shared_bytes: usize,
    /// The architecture it was compiled for; of PTX that the driver has translated, the PTX's.
    compiled_for: usize,
}

/// What a linear kernel can do to finished values; `Epilogues` in csrc/linear/linear.cuh.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Epilogues {
    /// Store or add.
    Plain,
    /// And an RMSNorm of the rows, or the sums of their squares.
    Row,
    /// And a normalised input, or a gate.
    Column,
}

impl Epilogues {
    /// What the kernels' names end with.
    const SUFFIXES: [&'static str; 3] = ["", "_row", "_column"];

    /// Those that a launch needs.
    fn of(params: &TrellinkLinear) -> Self {
        let (norm, columns) = (&params.norm, &params.columns);
        if norm.out != 0 || norm.squares != 0 {
            Epilogues::Row
        } else if columns.squares != 0 || columns.gated != 0 {
            Epilogues::Column
        } else {
            Epilogues::Plain
        }
    }
}

/// Kernels for one format, of launches that are [`LaunchShape::straight`].
#[derive(Clone, Copy, Debug)]
struct StraightKernels {
    kernel: LinearKernel,
    /// As segments have them.
    codebook: u32,
    half_bits: u32,
    plain: Kernel,
    row: Kernel,
}

/// How a kernel is launched: one-dimensional, on one stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Launch {
    /// CTAs, a multiple of `cluster`.
    pub(crate) grid: u32,
    /// CTAs of a cluster; 1 without clusters, which code for sm_90 and later knows.
    pub(crate) cluster: u32,
    /// Threads of a CTA.
    pub(crate) threads: u32,
    /// Dynamic shared memory of a CTA.
    pub(crate) shared_bytes: u32,
    pub(crate) stream: sys::CUstream,
    /// Whether it may begin before the launch ahead of it in the stream has ended. Its kernel then waits
    /// for that by itself (`griddepcontrol.wait`). Of no effect where kernels do not know that.
    pub(crate) early: bool,
}

/// The kernels of one context.
#[derive(Debug)]
pub(crate) struct Kernels {
    modules: Modules,
    /// In the order of [`LinearKernel::ALL`], each in that of [`Epilogues::SUFFIXES`].
    linear: Vec<[Kernel; Epilogues::SUFFIXES.len()]>,
    straight: Vec<StraightKernels>,
    /// Dynamic shared memory that every linear kernel may be launched with.
    pub(crate) max_shared_bytes: usize,
    /// Clusters of two CTAs of any linear kernel that shares K which the device holds at once, with all the
    /// dynamic shared memory they may have; 0 where kernels know no clusters.
    pub(crate) cluster_pairs: usize,
    /// By [`TransformShape::PASSES`], for f16 and for bf16.
    transform: [[Kernel; 2]; TransformShape::PASSES.len()],
    pub(crate) decode: Kernel,
    pub(crate) stream: Kernel,
    pub(crate) all_reduce: Kernel,
    pub(crate) link_probe: Kernel,
    /// Multiprocessors of the device.
    pub(crate) sm_count: usize,
    /// Tokens that a pass may have: as many as the device's MMAs leave registers for.
    pub(crate) most_tokens: usize,
    /// Whether inputs that were transformed ahead come to kernels in rings.
    pub(crate) rings: bool,
    /// Whether kernels know clusters and programmatic dependent launches.
    hopper: bool,
}

// SAFETY: module and function handles may be used from any thread in which the context is
// current; `launch` makes it so.
unsafe impl Send for Kernels {}
// SAFETY: as above, the handles are never changed after construction.
unsafe impl Sync for Kernels {}

impl Kernels {
    /// Loads all kernels into `context`.
    pub(crate) fn load(context: &Arc<CudaContext>) -> Result<Self> {
        bind(context)?;
        let mut modules = Modules::new(context);
        let mut linear = Vec::new();
        let mut straight: Vec<StraightKernels> = Vec::new();
        for kernel in LinearKernel::ALL {
            let module = modules.load(kernel.name())?;
            let function = |suffix: &str| {
                let symbol = format!("trellink_{}{suffix}", kernel.name());
                modules.function(module, &symbol)
            };
            let [plain, row, column] = Epilogues::SUFFIXES.map(function);
            linear.push([plain?, row?, column?]);
            for &(codebook, half_bits) in kernel.straight_formats() {
                let [plain, row, _] =
                    Epilogues::SUFFIXES.map(|suffix| format!("_{codebook}_{half_bits}{suffix}"));
                straight.push(StraightKernels {
                    kernel,
                    codebook: codebook.number(),
                    half_bits: half_bits as u32,
                    plain: function(&plain)?,
                    row: function(&row)?,
                });
            }
        }
        let transform = modules.transform()?;
        let decode = modules.kernel("decode")?;
        let stream = modules.kernel("stream")?;
        let all_reduce = modules.kernel("all_reduce")?;
        let link_probe = modules.kernel("link_probe")?;
        let sm_count = attribute(
            context,
            CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT,
        )?;
        let capability = context.compute_capability();
        let capability = capability.map_err(|e| error(e, "cuDeviceGetAttribute"))?;
        let all_linear: Vec<Kernel> = linear
            .iter()
            .flatten()
            .copied()
            .chain(
                straight
                    .iter()
                    .flat_map(|kernels| [kernels.plain, kernels.row]),
            )
            .collect();
        for kernel in &all_linear {
            prefer_shared_memory(kernel.function)?;
        }
        let launched_early = all_linear
            .iter()
            .chain(transform.iter().flatten())
            .chain([&all_reduce]);
        let compiled_for = launched_early.map(|kernel| kernel.compiled_for).min();
        let abilities = Abilities::new(compiled_for.unwrap_or(0), capability, super::BUILT_FOR);
        Ok(Kernels {
            max_shared_bytes: all_linear
                .iter()
                .map(|k| k.max_shared_bytes)
                .min()
                .unwrap_or(0),
            cluster_pairs: if abilities.hopper {
                cluster_pairs(&all_linear)?
            } else {
                0
            },
            most_tokens: abilities.most_tokens,
            modules,
            linear,
            straight,
            transform,
            decode,
            stream,
            all_reduce,
            link_probe,
            sm_count,
            rings: abilities.rings,
            hopper: abilities.hopper,
        })
    }

    pub(crate) fn context(&self) -> &Arc<CudaContext> {
        &self.modules.context
    }

    /// The linear kernel for a launch of a shape.
    pub(crate) fn linear(&self, shape: &LaunchShape, params: &TrellinkLinear) -> Kernel {
        let epilogues = Epilogues::of(params);
        let segment = &params.segment[0];
        let serves = |kernels: &&StraightKernels| {
            kernels.kernel == shape.kernel
                && kernels.codebook == segment.codebook
                && kernels.half_bits == segment.half_bits
        };
        if shape.straight {
            match (self.straight.iter().find(serves), epilogues) {
                (Some(kernels), Epilogues::Plain) => return kernels.plain,
                (Some(kernels), Epilogues::Row) => return kernels.row,
                _ => (),
            }
        }
        // Loaded in this order, all of them.
        self.linear[shape.kernel as usize][epilogues as usize]
    }

    /// The transform kernel for a shape and inputs of a dtype.
    pub(crate) fn transform(&self, shape: &TransformShape, dtype: DType) -> Kernel {
        self.transform[shape.pass()][usize::from(dtype == DType::Bf16)]
    }

    /// Enqueues a kernel whose only parameter is `params`.
    ///
    /// # Safety
    /// The kernel must be one of `self` and take a `P`; every pointer in `params` must be valid for
    /// what the kernel does until it has run; the stream must belong to this context.
    pub(crate) unsafe fn launch<P>(
        &self,
        kernel: Kernel,
        launch: Launch,
        params: &P,
    ) -> Result<()> {
        bind(self.context())?;
        let launch = Launch {
            early: launch.early && self.hopper,
            ..launch
        };
        let mut attributes = Attributes::of(&launch);
        let config = attributes.config(&launch);
        let mut arguments = [std::ptr::from_ref(params).cast_mut().cast::<c_void>()];
        // SAFETY: the driver copies parameter, configuration and attributes before it returns; the rest is
        // the caller's.
        let status = unsafe {
            sys::cuLaunchKernelEx(
                &config,
                kernel.function,
                arguments.as_mut_ptr(),
                std::ptr::null_mut(),
            )
        };
        check(status, "cuLaunchKernelEx")
    }
}

/// What a launch has beside its dimensions.
struct Attributes {
    list: [sys::CUlaunchAttribute; 2],
    count: u32,
}

impl Attributes {
    fn of(launch: &Launch) -> Self {
        let mut list = [early_launch(), early_launch()];
        let mut count = usize::from(launch.early);
        if launch.cluster > 1 {
            list[count] = cluster_dimension(launch.cluster);
            count += 1;
        }
        Attributes {
            list,
            count: count as u32,
        }
    }

    /// Points into `self`.
    fn config(&mut self, launch: &Launch) -> sys::CUlaunchConfig {
        sys::CUlaunchConfig {
            gridDimX: launch.grid,
            gridDimY: 1,
            gridDimZ: 1,
            blockDimX: launch.threads,
            blockDimY: 1,
            blockDimZ: 1,
            sharedMemBytes: launch.shared_bytes,
            hStream: launch.stream,
            attrs: self.list.as_mut_ptr(),
            numAttrs: self.count,
        }
    }
}

/// The attribute of a launch that may begin early.
fn early_launch() -> sys::CUlaunchAttribute {
    let mut attribute = MaybeUninit::<sys::CUlaunchAttribute>::zeroed();
    let pointer = attribute.as_mut_ptr();
    // SAFETY: `pointer` is valid for writes; the id is written, the rest is integers and pointers, for
    // which zero is valid.
    unsafe {
        std::ptr::addr_of_mut!((*pointer).id)
            .write(sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION);
        std::ptr::addr_of_mut!((*pointer).value.programmaticStreamSerializationAllowed).write(1);
        attribute.assume_init()
    }
}

/// The attribute of a launch in clusters of so many CTAs.
fn cluster_dimension(ctas: u32) -> sys::CUlaunchAttribute {
    let mut attribute = MaybeUninit::<sys::CUlaunchAttribute>::zeroed();
    let pointer = attribute.as_mut_ptr();
    // SAFETY: as in `early_launch`.
    unsafe {
        std::ptr::addr_of_mut!((*pointer).id)
            .write(sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION);
        std::ptr::addr_of_mut!((*pointer).value.clusterDim.x).write(ctas);
        std::ptr::addr_of_mut!((*pointer).value.clusterDim.y).write(1);
        std::ptr::addr_of_mut!((*pointer).value.clusterDim.z).write(1);
        attribute.assume_init()
    }
}

/// How many clusters of two CTAs the device holds at once of whichever linear kernel.
fn cluster_pairs(linear: &[Kernel]) -> Result<usize> {
    let mut least = usize::MAX;
    for loaded in linear {
        let launch = Launch {
            grid: 2,
            cluster: 2,
            threads: TRELLINK_LINEAR_THREADS,
            shared_bytes: u32::try_from(loaded.max_shared_bytes).unwrap_or(u32::MAX),
            stream: std::ptr::null_mut(),
            early: false,
        };
        let mut attributes = Attributes::of(&launch);
        let config = attributes.config(&launch);
        let mut clusters = 0;
        // SAFETY: the function is loaded, `clusters` is a valid place for the result, and the attributes that
        // the configuration points to live until after the call.
        let status =
            unsafe { sys::cuOccupancyMaxActiveClusters(&mut clusters, loaded.function, &config) };
        check(status, "cuOccupancyMaxActiveClusters")?;
        least = least.min(usize::try_from(clusters).unwrap_or(0));
    }
    Ok(least)
}

/// Loaded modules of a context, unloaded on drop: with it a half-finished `load` leaks nothing. Unloading does
/// not wait for kernels that still run, so dropping does.
#[derive(Debug)]
struct Modules {
    context: Arc<CudaContext>,
    loaded: Vec<sys::CUmodule>,
}

impl Modules {
    fn new(context: &Arc<CudaContext>) -> Self {
        Modules {
            context: context.clone(),
            loaded: Vec::new(),
        }
    }

    /// The kernels of transform.cu.
    fn transform(&mut self) -> Result<[[Kernel; 2]; TransformShape::PASSES.len()]> {
        let module = self.load("transform")?;
        let function = |tokens: u32, dtype: &str| {
            self.function(module, &format!("trellink_transform_{tokens}_{dtype}"))
        };
        let [a, b, c, d] = TransformShape::PASSES
            .map(|tokens| Ok::<_, Error>([function(tokens, "f16")?, function(tokens, "bf16")?]));
        Ok([a?, b?, c?, d?])
    }

    /// The one kernel of a file, which is called after it.
    fn kernel(&mut self, file: &str) -> Result<Kernel> {
        let module = self.load(file)?;
        self.function(module, &format!("trellink_{file}"))
    }

    /// Loads a file; the context is current.
    fn load(&mut self, file: &str) -> Result<sys::CUmodule> {
        let Some((_, image)) = FATBINS.iter().find(|(name, _)| *name == file) else {
            return Err(Error::CudaUnavailable {
                reason: format!("this build embeds no kernels (`{file}` is missing)"),
            });
        };
        let mut module = std::ptr::null_mut();
        // SAFETY: the image is a complete fatbin, embedded and aligned by the build script.
        let status = unsafe { sys::cuModuleLoadData(&mut module, image.as_ptr().cast()) };
        if status == sys::CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU {
            return Err(no_binary(&self.context));
        }
        check(status, "cuModuleLoadData")?;
        self.loaded.push(module);
        Ok(module)
    }

    fn function(&self, module: sys::CUmodule, symbol: &str) -> Result<Kernel> {
        let name = CString::new(symbol).map_err(|e| Error::CudaUnavailable {
            reason: e.to_string(),
        })?;
        let mut function = std::ptr::null_mut();
        // SAFETY: the module is one of these, the name is a C string.
        let status = unsafe { sys::cuModuleGetFunction(&mut function, module, name.as_ptr()) };
        check(status, "cuModuleGetFunction")?;
        configure(&self.context, function)
    }
}

impl Drop for Modules {
    fn drop(&mut self) {
        // If that fails, the context is done for, or a capture keeps anybody from waiting.
        let _ = synchronize_context(&self.context);
        for &module in &self.loaded {
            // SAFETY: loaded by us, unloaded once; the context is current.
            let _ = unsafe { sys::cuModuleUnload(module) };
        }
    }
}

/// Raises a kernel's dynamic shared memory to what the device allows. Also makes the driver load it.
fn configure(context: &CudaContext, function: sys::CUfunction) -> Result<Kernel> {
    let limit = attribute(
        context,
        CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN,
    )?;
    let fixed = function_attribute(
        function,
        CUfunction_attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES,
    )?;
    let max_shared_bytes = limit.saturating_sub(fixed);
    // SAFETY: the function is loaded.
    let status = unsafe {
        sys::cuFuncSetAttribute(
            function,
            CUfunction_attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
            i32::try_from(max_shared_bytes).unwrap_or(i32::MAX),
        )
    };
    check(status, "cuFuncSetAttribute")?;
    Ok(Kernel {
        function,
        max_shared_bytes,
        // For PTX this is what the PTX was compiled for, whereas the binary version is that of the device.
        compiled_for: function_attribute(
            function,
            CUfunction_attribute::CU_FUNC_ATTRIBUTE_PTX_VERSION,
        )?,
    })
}

/// Asks for SMs that have all the shared memory they can, not as much as a launch takes. An SM changes that only while
/// nothing runs there: one on which a transform has begun, that needs none, would have no room for a linear kernel's CTA
/// before the transform has ended (docs/performance.md).
fn prefer_shared_memory(function: sys::CUfunction) -> Result<()> {
    const ALL: i32 = 100; // percent
    let attribute = CUfunction_attribute::CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT;
    // SAFETY: the function is loaded.
    let status = unsafe { sys::cuFuncSetAttribute(function, attribute, ALL) };
    check(status, "cuFuncSetAttribute")
}

/// An attribute of a loaded function that is never negative.
fn function_attribute(function: sys::CUfunction, attribute: CUfunction_attribute) -> Result<usize> {
    let mut value = 0;
    // SAFETY: `value` is a valid place for the result, the function is loaded.
    let status = unsafe { sys::cuFuncGetAttribute(&mut value, attribute, function) };
    check(status, "cuFuncGetAttribute")?;
    Ok(usize::try_from(value).unwrap_or(0))
}

fn no_binary(context: &CudaContext) -> Error {
    let (major, minor) = context.compute_capability().unwrap_or_default();
    Error::CudaUnavailable {
        reason: format!(
            "device {} has compute capability {major}.{minor}, this build has kernels for {}; \
             rebuild with CUDA_COMPUTE_CAP={major}{minor}",
            context.ordinal(),
            super::BUILT_FOR
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cuda::driver::{context, device_count};

    /// Where the build has a device's own machine code, that code's abilities must be found. Nothing to do
    /// without a GPU.
    #[test]
    fn machine_code_for_a_device_can_do_what_the_device_can_on_cuda() {
        for ordinal in 0..device_count().unwrap_or(0) {
            let context = context(ordinal).unwrap();
            let (major, minor) = context.compute_capability().unwrap();
            let own = format!("{major}{minor}");
            let built_for: Vec<&str> = crate::cuda::BUILT_FOR.split(',').collect();
            let exactly = built_for.contains(&own.as_str());
            let with_suffix = built_for.contains(&format!("{own}a").as_str());
            if !exactly && !with_suffix {
                continue;
            }
            let kernels = Kernels::load(&context).unwrap();
            assert_eq!(kernels.hopper, major >= 9, "{own}");
            assert_eq!(kernels.cluster_pairs > 0, major >= 9, "{own}");
            let warpgroups = own == "90" && with_suffix && !exactly;
            assert_eq!(kernels.most_tokens, if warpgroups { 64 } else { 32 });
        }
    }
}
