// Every codebook by formed weights and inputs in two columns, up to 4 tokens a pass.
#include "linear/linear.cuh"

extern "C" __global__ void __launch_bounds__(TRELLINK_LINEAR_THREADS, 1)
    trellink_linear_formed_4(const __grid_constant__ TrellinkLinear params) {
  trellink::linear<trellink::FormedPairs, trellink::Epilogues::kPlain>(params);
}

extern "C" __global__ void __launch_bounds__(TRELLINK_LINEAR_THREADS, 1)
    trellink_linear_formed_4_row(const __grid_constant__ TrellinkLinear params) {
  trellink::linear<trellink::FormedPairs, trellink::Epilogues::kRow>(params);
}

extern "C" __global__ void __launch_bounds__(TRELLINK_LINEAR_THREADS, 1)
    trellink_linear_formed_4_column(const __grid_constant__ TrellinkLinear params) {
  trellink::linear<trellink::FormedPairs, trellink::Epilogues::kColumn>(params);
}
