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

  // A group of inputs, fp16. For MMAs of warpgroups: [tile][8 tokens][8 of the tile's 16 channels, twice][token][channel],
  // the last two being what the tensor core calls a core matrix. For those of a warp, what a lane needs of two tiles lies
  // together: [pair of tiles][8 tokens][token][quad][tile][half] two channels.
  static constexpr uint32_t kCoreBytes = 8 * 16, kBlockBytes = 2 * kCoreBytes, kTileBytes = kBlocks * kBlockBytes;
  static constexpr int kPairTiles = 2;
  static constexpr uint32_t kTokenBytes = 64, kQuadBytes = 16;

  // Channels 2q, 2q+1 of a tile, q being the quad; those of 2q+8, 2q+9 are in the next core matrix.
  template <class Layout>
  static __device__ __forceinline__ uint32_t* word(const Layout& held, uint32_t group, uint32_t tile, uint32_t token,
                                                   uint32_t quad) {
    constexpr uint32_t kCoreTokenBytes = 16;
    const uint32_t bytes = tile * kTileBytes + token / kMmaColumns * kBlockBytes + token % kMmaColumns * kCoreTokenBytes +
                           quad * kCoreTokenBytes / kQuads;
    return reinterpret_cast<uint32_t*>(held.input(group, 0) + bytes);
  }
  // Channels 2q, 2q+1, 2q+8 and 2q+9 of both tiles of a pair.
  template <class Layout>
  static __device__ __forceinline__ uint4* operand(const Layout& held, uint32_t group, uint32_t pair, uint32_t token,
                                                   uint32_t quad) {
    const uint32_t bytes = kPairTiles * (pair * kTileBytes + token / kMmaColumns * kBlockBytes) +
                           token % kMmaColumns * kTokenBytes + quad * kQuadBytes;
    return reinterpret_cast<uint4*>(held.input(group, 0) + bytes);
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
    uint2 x[kBlockTiles];
#pragma unroll
    for (int t = 0; t < kBlockTiles; ++t) {
      const float(&v)[4] = row.v[t];
      x[t] = make_uint2(ptx::pack_f16x2(__fmul_rn(v[0], scale), __fmul_rn(v[1], scale)),
                        ptx::pack_f16x2(__fmul_rn(v[2], scale), __fmul_rn(v[3], scale)));
    }
    if constexpr (kByWarpgroup) {
      uint32_t* to = word(held, group, 0, token, quad);
#pragma unroll
      for (int t = 0; t < kBlockTiles; ++t) {
        to[t * kTileBytes / 4] = x[t].x;
        to[(t * kTileBytes + kCoreBytes) / 4] = x[t].y;
      }
    } else {
      uint4* to = operand(held, group, 0, token, quad);
#pragma unroll
      for (int t = 0; t < kBlockTiles; t += kPairTiles) {
        to[t * kTileBytes / sizeof(uint4)] = make_uint4(x[t].x, x[t].y, x[t + 1].x, x[t + 1].y);
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
    static_for<kBlockTiles / kPairTiles>([&](auto pair) {
      uint4 b[kBlocks];
      // Columns without a token hold anything; their results go nowhere.
#pragma unroll
      for (int n = 0; n < kBlocks; ++n) b[n] = *operand(shared, group, pair, n * kMmaColumns + row, quad);
      static_for<kPairTiles>([&](auto i) {
        uint32_t x[kLaneWeights], a[4];
        block.template scrambled<kCodebook, pair * kPairTiles + i>(x);
        form_weights<kCodebook>(x, a);
#pragma unroll
        for (int n = 0; n < kBlocks; ++n) {
          ptx::mma_m16n8k16_f16(part[n], a[0], a[1], a[2], a[3], i == 0 ? b[n].x : b[n].z, i == 0 ? b[n].y : b[n].w);
        }
      });
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
