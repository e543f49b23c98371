// 3inst and mcg by two halves, up to 4 tokens a pass.
#include "linear/linear.cuh"

extern "C" __global__ void __launch_bounds__(TRELLINK_LINEAR_THREADS, 1)
    trellink_linear_halves_4(const __grid_constant__ TrellinkLinear params) {
  trellink::linear<trellink::Halves>(params);
}
