// Every codebook by formed weights, up to 64 tokens a pass. Only with MMAs of warpgroups.
#include "linear/linear.cuh"

TRELLINK_LINEAR_KERNELS(wide_64, Wide<8>)
TRELLINK_STRAIGHT_MUL1_KERNELS(wide_64, Wide<8>, 8)
TRELLINK_STRAIGHT_MCG_KERNELS(wide_64, Wide<8>, 8)
