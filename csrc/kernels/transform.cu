// The input of a linear launch, transformed once for all of its CTAs.
#include "linear/transform.cuh"

extern "C" __global__ void __launch_bounds__(TRELLINK_TRANSFORM_THREADS, 1)
    trellink_transform(const __grid_constant__ TrellinkTransform params) {
  trellink::transform(params);
}
