// Every codebook by formed weights, up to 8 tokens a pass.
#include "linear/linear.cuh"

TRELLINK_LINEAR_KERNELS(wide_8, Wide<1>)
TRELLINK_STRAIGHT_MUL1_KERNELS(wide_8, Wide<1>, 8)
TRELLINK_STRAIGHT_MCG_KERNELS(wide_8, Wide<1>, 8)
