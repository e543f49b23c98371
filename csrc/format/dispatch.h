// From a run-time codebook and bitrate to the template that decodes them.
//
// 4 bits come first. Code that runs once waits wherever it jumps, and each comparison lies beside the code that it
// chooses: what is looked for last costs a kernel four jumps more.
#pragma once

#include "format/codebook.h"

namespace trellink {

// Half bits of the bitrate that is looked for first.
constexpr int kFirstHalfBits = 8;

// Calls f.template run<kCodebook, half_bits>(), but for the first ones; false if the format has no such bitrate for the
// codebook.
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
    TRELLINK_CASE(2) TRELLINK_CASE(4) TRELLINK_CASE(6)
    TRELLINK_CASE(10) TRELLINK_CASE(12) TRELLINK_CASE(14) TRELLINK_CASE(16)
  }
#undef TRELLINK_CASE
  return false;
}

// The same with the codebook by its number, for the codebooks listed, and all bitrates.
template <Codebook... kCodebooks>
struct Dispatch {
  template <class F>
  static TRELLINK_HD bool run(uint32_t codebook, uint32_t half_bits, F&& f) {
    if (half_bits == kFirstHalfBits) {
      return ((codebook == static_cast<uint32_t>(kCodebooks) && run_first<kCodebooks>(f)) || ...);
    }
    return ((codebook == static_cast<uint32_t>(kCodebooks) && dispatch_half_bits<kCodebooks>(half_bits, f)) || ...);
  }

 private:
  template <Codebook kCodebook, class F>
  static TRELLINK_HD bool run_first(F& f) {
    f.template run<kCodebook, kFirstHalfBits>();
    return true;
  }
};

// The same where there is nothing to choose.
template <Codebook kCodebook, int kHalfBits>
struct Only {
  template <class F>
  static TRELLINK_HD bool run(uint32_t, uint32_t, F&& f) {
    f.template run<kCodebook, kHalfBits>();
    return true;
  }
};

using AllCodebooks = Dispatch<Codebook::kMul1, Codebook::kMcg, Codebook::k3inst>;

}  // namespace trellink
