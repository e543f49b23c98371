// mul1 by byte sums, up to 4 tokens a pass.
#include "linear/linear.cuh"

extern "C" __global__ void __launch_bounds__(TRELLINK_LINEAR_THREADS, 1)
    trellink_linear_bytes_4(const __grid_constant__ TrellinkLinear params) {
  trellink::linear<trellink::Bytes, false>(params);
}

extern "C" __global__ void __launch_bounds__(TRELLINK_LINEAR_THREADS, 1)
    trellink_linear_bytes_4_norm(const __grid_constant__ TrellinkLinear params) {
  trellink::linear<trellink::Bytes, true>(params);
}
