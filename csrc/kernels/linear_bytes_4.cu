// mul1 by byte sums, up to 4 tokens a pass.
#include "linear/linear.cuh"

TRELLINK_LINEAR_KERNELS(bytes_4, Bytes)
