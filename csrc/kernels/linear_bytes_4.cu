// mul1 by byte sums, up to 4 tokens a pass.
#include "linear/linear.cuh"

extern "C" __global__ void __launch_bounds__(TRELLINK_LINEAR_THREADS, 1)
    trellink_linear_bytes_4(const __grid_constant__ TrellinkLinear params) {
  trellink::linear<trellink::Bytes, trellink::Epilogues::kPlain>(params);
}

extern "C" __global__ void __launch_bounds__(TRELLINK_LINEAR_THREADS, 1)
    trellink_linear_bytes_4_row(const __grid_constant__ TrellinkLinear params) {
  trellink::linear<trellink::Bytes, trellink::Epilogues::kRow>(params);
}

extern "C" __global__ void __launch_bounds__(TRELLINK_LINEAR_THREADS, 1)
    trellink_linear_bytes_4_column(const __grid_constant__ TrellinkLinear params) {
  trellink::linear<trellink::Bytes, trellink::Epilogues::kColumn>(params);
}
