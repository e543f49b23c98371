// Every codebook by formed weights, up to 8 tokens a pass.
#include "linear/linear.cuh"

extern "C" __global__ void __launch_bounds__(TRELLINK_LINEAR_THREADS, 1)
    trellink_linear_formed_8(const __grid_constant__ TrellinkLinear params) {
  trellink::linear<trellink::Formed, false>(params);
}

extern "C" __global__ void __launch_bounds__(TRELLINK_LINEAR_THREADS, 1)
    trellink_linear_formed_8_norm(const __grid_constant__ TrellinkLinear params) {
  trellink::linear<trellink::Formed, true>(params);
}
