// Every codebook by formed weights, up to 16 tokens a pass.
#include "linear/linear.cuh"

TRELLINK_LINEAR_KERNELS(wide_16, Wide<2>)
TRELLINK_STRAIGHT_MUL1_KERNELS(wide_16, Wide<2>, 8)
TRELLINK_STRAIGHT_MCG_KERNELS(wide_16, Wide<2>, 8)
