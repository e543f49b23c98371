// From run-time (codebook, bitrate) to the template that decodes it.
#pragma once

#include "format/codebook.h"

namespace trellink {

// Calls f.template run<codebook, half_bits>() for the pair; false if the format has no such pair.
// Both are less than 32, or the pair would pass for another one.
template <class F>
TRELLINK_HD bool dispatch_format(uint32_t codebook, uint32_t half_bits, F&& f) {
#define TRELLINK_CASE(cb, hb)                     \
  case static_cast<uint32_t>(cb) * 32 + hb:       \
    f.template run<cb, hb>();                     \
    return true;
#define TRELLINK_WHOLE_RATES(cb)                                                    \
  TRELLINK_CASE(cb, 2) TRELLINK_CASE(cb, 4) TRELLINK_CASE(cb, 6) TRELLINK_CASE(cb, 8) \
  TRELLINK_CASE(cb, 10) TRELLINK_CASE(cb, 12) TRELLINK_CASE(cb, 14) TRELLINK_CASE(cb, 16)
  switch (codebook * 32 + half_bits) {
    TRELLINK_WHOLE_RATES(Codebook::k3inst)
    TRELLINK_WHOLE_RATES(Codebook::kMcg)
    TRELLINK_WHOLE_RATES(Codebook::kMul1)
    TRELLINK_CASE(Codebook::kMul1, 3)
    TRELLINK_CASE(Codebook::kMul1, 5)
    TRELLINK_CASE(Codebook::kMul1, 7)
    default:
      return false;
  }
#undef TRELLINK_WHOLE_RATES
#undef TRELLINK_CASE
}

}  // namespace trellink
