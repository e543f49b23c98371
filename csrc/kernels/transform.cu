// The input of a linear launch, transformed once for all of its CTAs.
#include "linear/transform.cuh"

// For passes of so many tokens, inputs of a dtype. Four CTAs an SM by their registers, so that one fits beside a CTA of a
// linear kernel for one format, which is then on every SM.
#define TRELLINK_TRANSFORM_KERNELS(tokens)             \
  TRELLINK_TRANSFORM_KERNEL(tokens, f16, false)        \
  TRELLINK_TRANSFORM_KERNEL(tokens, bf16, true)
#define TRELLINK_TRANSFORM_KERNEL(tokens, dtype, is_bf16)                                        \
  extern "C" __global__ void __launch_bounds__(TRELLINK_TRANSFORM_THREADS, 4)                    \
      trellink_transform_##tokens##_##dtype(const __grid_constant__ TrellinkTransform params) {  \
    trellink::transform<trellink::Wide<tokens / trellink::kMmaColumns>, is_bf16>(params);        \
  }

TRELLINK_TRANSFORM_KERNELS(8)
TRELLINK_TRANSFORM_KERNELS(16)
TRELLINK_TRANSFORM_KERNELS(32)
TRELLINK_TRANSFORM_KERNELS(64)
