// Spans: 2^log2 neighbouring K groups of a CTA, or fewer at its end. What warps take, and copies bring, at a time.
#pragma once

#include <cstdint>

namespace trellink {

__device__ __forceinline__ uint32_t spans_of(uint32_t groups, uint32_t log2) {
  return (groups + (1u << log2) - 1) >> log2;
}
__device__ __forceinline__ uint32_t groups_of_span(uint32_t groups, uint32_t log2, uint32_t span) {
  return min(1u << log2, groups - (span << log2));
}

}  // namespace trellink
