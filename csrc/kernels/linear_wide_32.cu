// Every codebook by formed weights, up to 32 tokens a pass.
#include "linear/linear.cuh"

extern "C" __global__ void __launch_bounds__(TRELLINK_LINEAR_THREADS, 1)
    trellink_linear_wide_32(const __grid_constant__ TrellinkLinear params) {
  trellink::linear<trellink::Wide<4>, trellink::Epilogues::kPlain>(params);
}

extern "C" __global__ void __launch_bounds__(TRELLINK_LINEAR_THREADS, 1)
    trellink_linear_wide_32_row(const __grid_constant__ TrellinkLinear params) {
  trellink::linear<trellink::Wide<4>, trellink::Epilogues::kRow>(params);
}

extern "C" __global__ void __launch_bounds__(TRELLINK_LINEAR_THREADS, 1)
    trellink_linear_wide_32_column(const __grid_constant__ TrellinkLinear params) {
  trellink::linear<trellink::Wide<4>, trellink::Epilogues::kColumn>(params);
}
