// What part of a launch a CTA computes, and in which pieces.
//
// Columns are cut into runs of neighbouring strips, one for every cluster; the CTAs of a cluster share
// K. A piece is what a CTA computes at a time: strips of one segment that its warps take at once, for
// the tokens of one pass.
#pragma once

#include "linear/quotient.cuh"
#include "linear/shared_layout.cuh"

namespace trellink {

// The strips of this CTA's cluster, in the launch's numbering, and its own K groups.
struct Cut {
  uint32_t begin, end;
  uint32_t first_group, end_group;

  __device__ uint32_t groups() const { return end_group - first_group; }

  // Strips are dealt out `unit` at a time, as evenly as that allows.
  static __device__ Cut of(const TrellinkLinear& params, uint32_t unit) {
    // One CTA or two.
    const uint32_t splits_log2 = params.k_splits / 2, more = params.more_units;
    const uint32_t cluster = blockIdx.x >> splits_log2, rank = blockIdx.x - (cluster << splits_log2);
    Cut cut;
    cut.first_group = params.k_groups * rank >> splits_log2;
    cut.end_group = params.k_groups * (rank + 1) >> splits_log2;
    cut.begin = params.first_strip + unit * (cluster * params.units + min(cluster, more));
    cut.end = cut.begin + unit * (params.units + (cluster < more ? 1 : 0));
    return cut;
  }
};

template <class Arithmetic>
struct Piece {
  uint32_t first_token, tokens;
  uint32_t segment;
  uint32_t strip, strips;  // in the launch's numbering

  // The first piece of a CTA. A launch has strips and rows, and no CTA has none.
  static __device__ Piece first(const TrellinkLinear& params, const Cut& cut) {
    Piece piece{0, 0, 0, cut.begin, 0};
    piece.measure(params, cut);
    return piece;
  }

  // Whether this is the first piece, without a register to remember it.
  __device__ bool is_first(const Cut& cut) const {
    return Arithmetic::kStraight || (first_token == 0 && strip == cut.begin);
  }

  // Goes on to the next piece; false if this was the last.
  __device__ bool next(const TrellinkLinear& params, const Cut& cut) {
    if (Arithmetic::kStraight) return false;
    strip += strips;
    if (strip == cut.end) {
      strip = cut.begin;
      segment = 0;
      first_token += Arithmetic::kTokens;
    }
    if (first_token >= params.rows) return false;
    measure(params, cut);
    return true;
  }

  __device__ bool paired(const TrellinkLinear& params) const {
    if (Arithmetic::kStrips == 1) return false;
    const uint32_t half_bits = Arithmetic::kStraight ? Arithmetic::kHalfBits : params.segment[segment].half_bits;
    return half_bits <= params.paired_half_bits;
  }
  __device__ uint32_t strips_per_warp(const TrellinkLinear& params) const {
    return paired(params) ? Arithmetic::kStrips : 1;
  }

 private:
  __device__ void measure(const TrellinkLinear& params, const Cut& cut) {
    if constexpr (Arithmetic::kStraight) {
      segment = 0;
      strips = cut.end - cut.begin;
      tokens = params.rows;
    } else {
      while (strip >= params.segment[segment].first_strip + params.segment[segment].strips) ++segment;
      const uint32_t segment_end = params.segment[segment].first_strip + params.segment[segment].strips;
      const uint32_t most = paired(params) ? kWarps * Arithmetic::kStrips : kWarps;
      strips = min(min(cut.end, segment_end) - strip, most);
      tokens = min(params.rows - first_token, static_cast<uint32_t>(Arithmetic::kTokens));
    }
  }
};

// How a piece's strips and the CTA's K groups are shared out to its warps: `slots` groups of `count`
// strips, times as many slices of K as there are warps for. Where strips come in fours, so do warps with
// the same slice.
struct Share {
  uint32_t slots, slices;
  uint32_t slot, slice;

  __device__ Share(uint32_t strips, uint32_t count) : slots(strips / count), slices(quotient(kWarps, slots)) {
    const uint32_t warp = ptx::warp_index();
    slice = quotient(warp, slots);
    slot = warp - slice * slots;
  }
  // Some warps may be left over.
  __device__ bool works() const { return slice < slices; }
};

}  // namespace trellink
