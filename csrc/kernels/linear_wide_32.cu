// Every codebook by formed weights, up to 32 tokens a pass.
#include "linear/linear.cuh"

TRELLINK_LINEAR_KERNELS(wide_32, Wide<4>)
TRELLINK_STRAIGHT_MUL1_KERNELS(wide_32, Wide<4>, 8)
TRELLINK_STRAIGHT_MCG_KERNELS(wide_32, Wide<4>, 8)
