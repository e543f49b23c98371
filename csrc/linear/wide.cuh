// The arithmetic of formed weights for more than a few tokens: fp16 weights, bit for bit those of the format, times fp16
// inputs. A group of 128 is summed in f32 by the tensor core, then scaled and added to the accumulator in f32.
//
// It is also the one for every number of tokens where bits must not depend on it.
//
// From 16 tokens on, four warps take four neighbouring strips together. On Hopper they are a warpgroup where there
// are more than 16: its MMA takes the weights from registers, the inputs from shared memory, and may run while the
// warp decodes the next tiles. An mma.sync of 8 tokens takes 7 to 9 issue slots, one of a warpgroup 13 to 26.
#pragma once

#include "linear/decode.cuh"
#include "linear/float_sums.cuh"

namespace trellink {

template <int kBlocks>
struct Wide : FloatSums<kBlocks> {
  using typename FloatSums<kBlocks>::Accumulator;
  using Codebooks = AllCodebooks;
  static constexpr int kTokens = kBlocks * kMmaColumns;
  static constexpr int kStrips = 1;
  static constexpr int kWarpsTogether = kBlocks > 1 ? 4 : 1;
  static constexpr bool kSpans = true;
  // It would leave 64 tokens too few registers.
  static constexpr bool kTransforms = kBlocks <= 4;
  static constexpr bool kFewTokens = false;
  static constexpr int kPairedHalfBits = 0;
  static constexpr uint32_t kTokenGroupBytes = kGroup * 2;
  // Places for all tokens of a pass, even if there are fewer: the tensor core reads them all.
  static constexpr uint32_t kHeldTokens = kTokens;
  using Shared = SharedLayout<Wide>;
  static constexpr bool kByWarpgroup = TRELLINK_WGMMA && kBlocks > 2;
  // Tiles whose warpgroup MMAs are started together, as measured (docs/performance.md).
  static constexpr int kTilesTogether = kBlocks > 4 ? 2 : 1;

  // A group of inputs is [tile][8 tokens]. For MMAs of warpgroups these are what the tensor core calls core matrices:
  // [8 of a tile's 16 channels, twice][token][channel] fp16. For those of a warp, what a lane needs lies together:
  // [token][quad][half] two channels.
  static constexpr uint32_t kCoreBytes = 8 * 16, kBlockBytes = 2 * kCoreBytes, kTileBytes = kBlocks * kBlockBytes;
  static constexpr uint32_t kTokenBytes = kByWarpgroup ? 16 : 32, kQuadBytes = kByWarpgroup ? 4 : 8;

  // fp16 of channels 2q, 2q+1 of a tile, q being the quad; those of 2q+8, 2q+9 follow, or are in the next core matrix.
  template <class Layout>
  static __device__ __forceinline__ uint32_t* word(const Layout& held, uint32_t group, uint32_t tile, uint32_t token,
                                                   uint32_t quad) {
    const uint32_t bytes = tile * kTileBytes + token / kMmaColumns * kBlockBytes + token % kMmaColumns * kTokenBytes +
                           quad * kQuadBytes;
    return reinterpret_cast<uint32_t*>(held.input(group, 0) + bytes);
  }

  // Writes a transformed row.
  template <class Layout>
  static __device__ __forceinline__ void store_row(const Layout& held, const RowValues& row, uint32_t group,
                                                   uint32_t token, uint32_t quad, bool exists) {
    const float magnitude = __fmul_rn(row.magnitude(), kHadamardScale);
    const uint32_t scale_bits = power_of_two_scale(__float_as_uint(magnitude));
    if (!exists) return;
    // A power of two rounds nothing, so one multiplication does what two would.
    const float scale = __fmul_rn(kHadamardScale, __uint_as_float(scale_bits));
    if (quad == 0) *held.scale(group, token) = __uint_as_float(inverse_power_of_two(scale_bits));
    uint32_t* to = word(held, group, 0, token, quad);
#pragma unroll
    for (int t = 0; t < kBlockTiles; ++t) {
      const float(&v)[4] = row.v[t];
      const uint2 x = make_uint2(ptx::pack_f16x2(__fmul_rn(v[0], scale), __fmul_rn(v[1], scale)),
                                 ptx::pack_f16x2(__fmul_rn(v[2], scale), __fmul_rn(v[3], scale)));
      if constexpr (kByWarpgroup) {
        to[t * kTileBytes / 4] = x.x;
        to[(t * kTileBytes + kCoreBytes) / 4] = x.y;
      } else {
        *reinterpret_cast<uint2*>(to + t * kTileBytes / 4) = x;
      }
    }
  }

  // acc += blocks * group `group` of the shared input. By warpgroups.
  template <Codebook kCodebook, int kHalfBits, int kCount>
  static __device__ __forceinline__ void multiply(const LaneBlock<kHalfBits> (&blocks)[kCount], const Shared& shared,
                                                  uint32_t group, uint32_t lane, Accumulator (&acc)[kCount]) {
    static_assert(kCount == 1, "one strip a warp");
    float part[kBlocks][4];
    if constexpr (kByWarpgroup) {
      multiply_by_warpgroup<kCodebook>(blocks[0], shared, group, part);
    } else {
      multiply_by_warp<kCodebook>(blocks[0], shared, group, lane, part);
    }
    FloatSums<kBlocks>::add_group(shared, group, lane, part, acc[0]);
  }

 private:
  // part = block * group `group` of the shared input.
  template <Codebook kCodebook, int kHalfBits>
  static __device__ __forceinline__ void multiply_by_warp(const LaneBlock<kHalfBits>& block, const Shared& shared,
                                                          uint32_t group, uint32_t lane, float (&part)[kBlocks][4]) {
    const uint32_t row = lane / kQuads, quad = lane % kQuads;
#pragma unroll
    for (int i = 0; i < kBlocks * 4; ++i) part[i / 4][i % 4] = 0;
    static_for<kBlockTiles>([&](auto tile) {
      uint32_t x[kLaneWeights], a[4];
      block.template scrambled<kCodebook, tile>(x);
      form_weights<kCodebook>(x, a);
#pragma unroll
      for (int n = 0; n < kBlocks; ++n) {
        // Columns without a token hold anything; their results go nowhere.
        const uint32_t token = n * kMmaColumns + row;
        const uint2 b = *reinterpret_cast<const uint2*>(word(shared, group, tile, token, quad));
        ptx::mma_m16n8k16_f16(part[n], a[0], a[1], a[2], a[3], b.x, b.y);
      }
    });
  }

  // The same, all of the warpgroup together.
  template <Codebook kCodebook, int kHalfBits>
  static __device__ __forceinline__ void multiply_by_warpgroup(const LaneBlock<kHalfBits>& block, const Shared& shared,
                                                               uint32_t group, float (&part)[kBlocks][4]) {
#if TRELLINK_WGMMA
    // The group is the same for all lanes, but the compiler does not know: in uniform registers it costs less.
    const unsigned char* inputs_at = shared.input(__shfl_sync(0xffffffffu, group, 0), 0);
    const uint64_t inputs = ptx::matrix_descriptor(inputs_at, kCoreBytes, kBlockBytes);
    uint32_t a[2][kTilesTogether][4];
    static_for<kBlockTiles / kTilesTogether>([&](auto batch) {
      static_for<kTilesTogether>([&](auto i) {
        uint32_t x[kLaneWeights];
        block.template scrambled<kCodebook, batch * kTilesTogether + i>(x);
        form_weights<kCodebook>(x, a[batch % 2][i]);
      });
      ptx::wgmma_fence();
      static_for<kTilesTogether>([&](auto i) {
        constexpr int kTile = batch * kTilesTogether + i;
        ptx::wgmma_f16(part, a[batch % 2][i], inputs + kTile * (kTileBytes / 16), kTile > 0);
      });
      ptx::wgmma_commit();
      // The ones before have ended; these may last while the next tiles are decoded.
      ptx::wgmma_wait<1>();
    });
    ptx::wgmma_wait<0>();
    ptx::wgmma_results(part);
#endif
  }
};

// Whether an architecture has an arithmetic; the host does not launch the kernels of one that it has not. For 64
// tokens, MMAs of a warp leave too few registers.
template <class Arithmetic>
constexpr bool kExists = true;
template <>
constexpr bool kExists<Wide<8>> = TRELLINK_WGMMA;
template <class Arithmetic, Codebook kCodebook, int kHalfBits>
constexpr bool kExists<Straight<Arithmetic, kCodebook, kHalfBits>> = kExists<Arithmetic>;

}  // namespace trellink
