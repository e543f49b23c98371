// From a run-time codebook and bitrate to the template that decodes them.
#pragma once

#include "format/codebook.h"

namespace trellink {

// Calls f.template run<kCodebook, half_bits>(); false if the format has no such bitrate for the codebook.
template <Codebook kCodebook, class F>
TRELLINK_HD bool dispatch_half_bits(uint32_t half_bits, F&& f) {
#define TRELLINK_CASE(hb)              \
  case hb:                             \
    f.template run<kCodebook, hb>();   \
    return true;
  if constexpr (codebook_supports(kCodebook, 3)) {
    switch (half_bits) { TRELLINK_CASE(3) TRELLINK_CASE(5) TRELLINK_CASE(7) }
  }
  switch (half_bits) {
    TRELLINK_CASE(2) TRELLINK_CASE(4) TRELLINK_CASE(6) TRELLINK_CASE(8)
    TRELLINK_CASE(10) TRELLINK_CASE(12) TRELLINK_CASE(14) TRELLINK_CASE(16)
  }
#undef TRELLINK_CASE
  return false;
}

// The same with the codebook by its number, for the codebooks listed.
template <Codebook... kCodebooks>
struct Dispatch {
  template <class F>
  static TRELLINK_HD bool run(uint32_t codebook, uint32_t half_bits, F&& f) {
    return ((codebook == static_cast<uint32_t>(kCodebooks) && dispatch_half_bits<kCodebooks>(half_bits, f)) || ...);
  }
};
using AllCodebooks = Dispatch<Codebook::k3inst, Codebook::kMcg, Codebook::kMul1>;

}  // namespace trellink
