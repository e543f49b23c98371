// Every codebook by formed weights and inputs in two columns, up to 4 tokens a pass.
#include "linear/linear.cuh"

TRELLINK_LINEAR_KERNELS(formed_4, FormedPairs)
TRELLINK_STRAIGHT_MCG_KERNELS(formed_4, FormedPairs, 8)
