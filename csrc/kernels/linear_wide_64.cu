// Every codebook by formed weights, up to 64 tokens a pass. Only with MMAs of warpgroups: those of a warp leave
// too few registers, and the host does not launch this without the others.
#include "linear/linear.cuh"

extern "C" __global__ void __launch_bounds__(TRELLINK_LINEAR_THREADS, 1)
    trellink_linear_wide_64(const __grid_constant__ TrellinkLinear params) {
#if TRELLINK_WGMMA
  trellink::linear<trellink::Wide<8>, trellink::Epilogues::kPlain>(params);
#else
  trellink::ptx::trap();
#endif
}

extern "C" __global__ void __launch_bounds__(TRELLINK_LINEAR_THREADS, 1)
    trellink_linear_wide_64_row(const __grid_constant__ TrellinkLinear params) {
#if TRELLINK_WGMMA
  trellink::linear<trellink::Wide<8>, trellink::Epilogues::kRow>(params);
#else
  trellink::ptx::trap();
#endif
}

extern "C" __global__ void __launch_bounds__(TRELLINK_LINEAR_THREADS, 1)
    trellink_linear_wide_64_column(const __grid_constant__ TrellinkLinear params) {
#if TRELLINK_WGMMA
  trellink::linear<trellink::Wide<8>, trellink::Epilogues::kColumn>(params);
#else
  trellink::ptx::trap();
#endif
}
