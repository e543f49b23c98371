// Blocks to the decoded matrix: what tests and `trellink verify` compare bit for bit.
#include "linear/decode.cuh"
#include "params.h"

namespace trellink {

struct DecodeBlock {
  const TrellinkDecode& params;
  uint32_t block;

  template <Codebook kCodebook, int kHalfBits>
  __device__ __forceinline__ void run() {
    const uint32_t lane = threadIdx.x % 32;
    const uint32_t strip = block / params.k_groups, group = block % params.k_groups;
    const LaneBlock<kHalfBits> lane_block(reinterpret_cast<const uint32_t*>(params.blocks) +
                                              static_cast<uint64_t>(block) * Block<kHalfBits>::kWords,
                                          lane);
    const uint64_t columns = static_cast<uint64_t>(params.strips) * kTile;
    auto* out = reinterpret_cast<uint16_t*>(params.out);
    static_for<kBlockTiles>([&](auto tile) {
      uint32_t x[kLaneWeights], a[4];
      lane_block.template scrambled<kCodebook, tile>(x);
      form_weights<kCodebook>(x, a);
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const uint32_t k = group * kGroup + tile * kTile + 2 * (lane % 4) + i % 2 + i / 4 * 8;
        const uint32_t n = strip * kTile + lane / 4 + i / 2 % 2 * 8;
        out[k * columns + n] = static_cast<uint16_t>(a[i / 2] >> (i % 2 * 16));
      }
    });
  }
};

}  // namespace trellink

// One warp a block; any grid.
extern "C" __global__ void __launch_bounds__(128)
    trellink_decode(const __grid_constant__ TrellinkDecode params) {
  const uint32_t warps = gridDim.x * (blockDim.x / 32);
  const uint32_t blocks = params.strips * params.k_groups;
  for (uint32_t b = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32; b < blocks; b += warps) {
    trellink::DecodeBlock decode{params, b};
    trellink::AllCodebooks::run(params.codebook, params.half_bits, decode);
  }
}
