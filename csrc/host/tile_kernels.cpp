// The host's two kernels: blocks to weights, and blocks times inputs.
//
// Compiled once per instruction set, with TRELLINK_VARIANT in the names of the functions; all else
// has internal linkage (see simd.h). src/host/kernels.rs chooses a variant at run time.
//
// What must stay true: the order of additions of an output depends on K alone. Per lane, the 32 steps
// of a block are added up from zero in order, the blocks' sums are added in order of K, and at the
// end the four lanes that share a column are. Neither the number of rows nor a row's place enters.
#include <cstddef>

#include "format/dispatch.h"
#include "host/decoded_block.h"

namespace trellink {
namespace {

using Decoder = void (*)(const uint32_t*, DecodedBlock&);

struct SelectDecoder {
  Decoder decoder = nullptr;

  template <Codebook kCodebook, int kHalfBits>
  void run() {
    decoder = &decode_block<kCodebook, kHalfBits>;
  }
};

// Null if the format has no such pair.
Decoder select_decoder(uint32_t codebook, uint32_t half_bits) {
  SelectDecoder select;
  AllCodebooks::run(codebook, half_bits, select);
  return select.decoder;
}

// Rows that share one decoding of a block; their sums stay in the first-level cache.
constexpr size_t kPassRows = 64;

// Sums of one row and one strip: a vector for every column vector of a decoded block.
struct RowSums {
  alignas(64) float values[kColumnVectors][kWidth];
};

// sums += block * x, for kRows rows and the kColumns column vectors from `first` on. x: 128 inputs of
// each row in the order of the steps.
template <int kRows, int kColumns>
void multiply_columns(const DecodedBlock& block, int first, const float* x, RowSums* sums) {
  F32 part[kRows][kColumns] = {};
  for (int step = 0; step < kSteps; ++step) {
    F32 weights[kColumns];
    for (int c = 0; c < kColumns; ++c) weights[c] = load<F32>(block.values[first + c][step]);
    for (int r = 0; r < kRows; ++r) {
      const F32 input = broadcast4(x + r * kGroup + 4 * step);
      for (int c = 0; c < kColumns; ++c) part[r][c] = multiply_add(weights[c], input, part[r][c]);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int c = 0; c < kColumns; ++c) {
      float* sum = sums[r].values[first + c];
      store(sum, load<F32>(sum) + part[r][c]);
    }
  }
}

// As many accumulators as registers hold beside the operands.
constexpr int kAccumulators = kWidth == 16 ? 16 : 8;

template <int kRows>
void multiply_rows(const DecodedBlock& block, const float* x, RowSums* sums) {
  constexpr int kFit = kAccumulators / kRows;
  constexpr int kColumns = kFit < kColumnVectors ? kFit : kColumnVectors;
  for (int first = 0; first < kColumnVectors; first += kColumns) {
    multiply_columns<kRows, kColumns>(block, first, x, sums);
  }
}

void multiply_block(const DecodedBlock& block, const float* x, size_t rows, RowSums* sums) {
  size_t row = 0;
  for (; row + 4 <= rows; row += 4) multiply_rows<4>(block, x + row * kGroup, sums + row);
  for (; row < rows; ++row) multiply_rows<1>(block, x + row * kGroup, sums + row);
}

// Adds up the four lanes of every column: 16 columns of one row.
void reduce_lanes(const RowSums& sums, float* out) {
  for (int v = 0; v < kColumnVectors; ++v) {
    const int subset = v % kSubsets;
    for (int i = 0; i < kWidth; i += 4) {
      const float* s = sums.values[v] + i;
      out[DecodedBlock::column(v, subset * kWidth + i)] = (s[0] + s[1]) + (s[2] + s[3]);
    }
  }
}

struct Strip {
  Decoder decoder;
  size_t block_words;
  size_t groups;
  const uint32_t* blocks;
  const float* x;  // [group][all rows][128]
  size_t rows;

  // out: [row][16] of rows [first, first + count), count <= kPassRows.
  void multiply(size_t first, size_t count, float* out) const {
    RowSums sums[kPassRows];
    __builtin_memset(sums, 0, count * sizeof(RowSums));
    for (size_t group = 0; group < groups; ++group) {
      DecodedBlock block;
      decoder(blocks + group * block_words, block);
      multiply_block(block, x + (group * rows + first) * kGroup, count, sums);
    }
    for (size_t row = 0; row < count; ++row) reduce_lanes(sums[row], out + (first + row) * kTile);
  }
};

void unpack_block(const DecodedBlock& block, float* out) {
  for (int v = 0; v < kColumnVectors; ++v) {
    for (int step = 0; step < kSteps; ++step) {
      for (int i = 0; i < kWidth; ++i) {
        const int lane = v % kSubsets * kWidth + i;
        out[DecodedBlock::row(step, lane) * kTile + DecodedBlock::column(v, lane)] = block.values[v][step][i];
      }
    }
  }
}

}  // namespace
}  // namespace trellink

#define TRELLINK_JOIN2(a, b) a##b
#define TRELLINK_JOIN(a, b) TRELLINK_JOIN2(a, b)
#define TRELLINK_NAME(name) TRELLINK_JOIN(name, TRELLINK_VARIANT)

extern "C" {

// Multiplies strips of 16 columns with `rows` rows of inputs.
//   blocks  [strip][group] blocks of packed words, each [word][lane]
//   x       [group][row][128], the inputs of a group in the order of DecodedBlock's steps
//   sums    [strip][row][16]; its length gives the number of strips
// Lengths are in elements. Returns false, and writes nothing, if they do not fit together or the
// format has no such codebook and bitrate.
bool TRELLINK_NAME(trellink_host_multiply_)(uint32_t codebook, uint32_t half_bits, size_t groups, size_t rows,
                                            const uint32_t* blocks, size_t blocks_len, const float* x, size_t x_len,
                                            float* sums, size_t sums_len) {
  using namespace trellink;
  const Decoder decoder = select_decoder(codebook, half_bits);
  const size_t strip_sums = rows * kTile;
  if (!decoder || strip_sums == 0 || sums_len % strip_sums != 0) return false;
  const size_t strips = sums_len / strip_sums;
  const size_t block_words = static_cast<size_t>(kLanes) * half_bits;
  if (blocks_len != strips * groups * block_words || x_len != groups * rows * kGroup) return false;

  for (size_t s = 0; s < strips; ++s) {
    const Strip strip{decoder, block_words, groups, blocks + s * groups * block_words, x, rows};
    for (size_t first = 0; first < rows; first += kPassRows) {
      const size_t left = rows - first;
      strip.multiply(first, left < kPassRows ? left : kPassRows, sums + s * strip_sums);
    }
  }
  return true;
}

// Decodes blocks of packed words, each [word][lane], to weights [block][row 128][column 16]. Returns
// false, and writes nothing, if the lengths do not fit or the format has no such pair.
bool TRELLINK_NAME(trellink_host_decode_)(uint32_t codebook, uint32_t half_bits, const uint32_t* blocks,
                                          size_t blocks_len, float* weights, size_t weights_len) {
  using namespace trellink;
  const Decoder decoder = select_decoder(codebook, half_bits);
  const size_t block_words = static_cast<size_t>(kLanes) * half_bits;
  const size_t block_weights = static_cast<size_t>(kGroup) * kTile;
  if (!decoder || blocks_len % block_words != 0) return false;
  const size_t count = blocks_len / block_words;
  if (weights_len != count * block_weights) return false;

  for (size_t b = 0; b < count; ++b) {
    DecodedBlock block;
    decoder(blocks + b * block_words, block);
    unpack_block(block, weights + b * block_weights);
  }
  return true;
}

}  // extern "C"
