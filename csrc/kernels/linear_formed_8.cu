// Every codebook by formed weights, up to 8 tokens a pass.
#include "linear/linear.cuh"

extern "C" __global__ void __launch_bounds__(TRELLINK_LINEAR_THREADS, 1)
    trellink_linear_formed_8(const __grid_constant__ TrellinkLinear params) {
  trellink::linear<trellink::Formed, trellink::Epilogues::kPlain>(params);
}

extern "C" __global__ void __launch_bounds__(TRELLINK_LINEAR_THREADS, 1)
    trellink_linear_formed_8_row(const __grid_constant__ TrellinkLinear params) {
  trellink::linear<trellink::Formed, trellink::Epilogues::kRow>(params);
}

extern "C" __global__ void __launch_bounds__(TRELLINK_LINEAR_THREADS, 1)
    trellink_linear_formed_8_column(const __grid_constant__ TrellinkLinear params) {
  trellink::linear<trellink::Formed, trellink::Epilogues::kColumn>(params);
}
