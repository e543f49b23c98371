// The fused linear kernel: input transform, decode, multiply, exchange, epilogue.
//
// Work is cut by output columns: a CTA, or a cluster of CTAs that share K, owns neighbouring 16-column
// strips over the whole K of the rank's shard. So a partial sum leaves it once, and the sum over ranks
// and the gathering of a 128-column group for the output transform are the same exchange.
//
// An arithmetic (bytes.cuh, formed_pairs.cuh, wide.cuh) says how weights and inputs meet:
//   Codebooks            the ones it serves
//   kTokens              tokens of a pass
//   kStrips              strips that a warp takes at once at up to kPairedHalfBits; beyond, one
//   kWarpsTogether       warps that take neighbouring strips of the same K groups, a warpgroup or one
//   kHeldTokens          tokens that shared memory has places for, 0 for as many as there are
//   kSpans               whether warps take spans of several groups, and operands come through a ring
//   kTransforms          whether CTAs transform the input where no other launch has, in chunks of what fits
//   kTokenGroupBytes     shared memory for a group of one token's inputs, and Scale beside it
//   store_row            writes a transformed group of a token there; few tokens have lane_operands and store_group for it
//   multiply             adds a block's products to an Accumulator
//   store_sums           writes an Accumulator to the shared sums
//   kStraight            whether it serves launches alone whose CTAs do nothing twice, in one format (straight.cuh)
#pragma once

#include "comm/exchange.cuh"
#include "linear/bytes.cuh"
#include "linear/columns.cuh"
#include "linear/cut.cuh"
#include "linear/finish.cuh"
#include "linear/formed_pairs.cuh"
#include "linear/input.cuh"
#include "linear/operands.cuh"
#include "linear/slice_sums.cuh"
#include "linear/straight.cuh"
#include "linear/strip_gemm.cuh"
#include "linear/weight_stream.cuh"
#include "linear/wide.cuh"

namespace trellink {

// What a CTA's threads all know and need again after the main loop. In shared memory, for the loop
// wants all registers.
template <class Arithmetic>
struct Frame {
  Cut cut;
  Piece<Arithmetic> piece;
  bool input_is_loaded;  // the first chunk of the piece's input
  ExchangeState exchange;
};

// What a kernel can do to finished values besides Finish. Kernels of their own, since the others would pay for
// the code (docs/performance.md).
enum class Epilogues {
  kPlain,
  kRow,     // norm.cuh
  kColumn,  // columns.cuh
};

// One CTA's run of the kernel.
template <class Arithmetic, Epilogues kEpilogues>
class LinearCta {
 public:
  __device__ LinearCta(const TrellinkLinear& params, WarpRecord (&records)[kWarps], RingPlaces& places)
      : params_(params), weights_(params, records[ptx::warp_index()]), places_(places) {}

  __device__ __forceinline__ void run() {
    __shared__ Frame<Arithmetic> frame;
    // The next launch finds no room before this CTA has left; so it can as well be ready by then. A transform ahead of it
    // finds some, and is out of the way when its CTAs want theirs.
    ptx::launch_dependents();
    const Cut cut = Cut::of(params_, Arithmetic::kStrips * Arithmetic::kWarpsTogether);
    const auto piece = Piece<Arithmetic>::first(params_, cut);
    FirstItem<Arithmetic> first;
    // Neither scales nor weights depend on another launch. The scales are needed first.
    if constexpr (Arithmetic::kTransforms) {
      if (!params_.operands && cut.groups() > 0) {
        first = first_item(piece, cut.first_group, cut.end_group);
        prefetch_scales(cut, piece);
      }
    }
    prefetch_finish();
    if constexpr (Arithmetic::kSpans) {
      if (Ring::serves(params_)) Ring::init(places_, piece.strips, false);
    }
    const Share share(piece.strips, piece.strips_per_warp(params_));
    begin_weights(cut, piece, share);
    if (threadIdx.x == 0) {
      frame.cut = cut;
      frame.piece = piece;
      frame.input_is_loaded = true;
    }
    // The constants that come behind the loop; each warp scheduler has a cache of its own for them.
    if (Arithmetic::kStraight) ptx::opaque(params_.exchange.operation.tag);
    __syncthreads();
    typename Ring::Copy copy{};
    if constexpr (!Arithmetic::kTransforms) copy = first_copy(cut, piece, share);
    ptx::grid_dependency_wait();
    first.load();
    // Opaque, or the compiler keeps what it knows of the thread in a register through all of this.
    ExchangeState state{};
    if (ptx::opaque(threadIdx.x) == 0) state = ExchangeState::load(params_.exchange);
    if constexpr (!Arithmetic::kTransforms) {
      copy.start();
      if (groups_ahead() == 1) weights_.begin_rest(Arithmetic::kHalfBits * kLanes, 1);
    } else if (Ring::serves(params_)) {
      first_copy(cut, piece, share).start();
    } else {
      // An empty shard has no input.
      if (cut.groups() > 0) load_chunk(piece, cut.first_group, cut.end_group, first);
      __syncthreads();
    }
    // Nobody asks for the state before the sums are there; so nobody waits for it with the input.
    if (ptx::opaque(threadIdx.x) == 0) frame.exchange = state;
    for (;;) {
      if constexpr (Arithmetic::kStrips > 1) {
        if (frame.piece.paired(params_)) multiply<Arithmetic::kStrips>(frame);
      }
      if (!frame.piece.paired(params_)) multiply<1>(frame);
      // What comes next is found out while others are waited for. Kernels for every format have no registers to keep it.
      FinishItems items;
      KeptItem item;
      Pairs pairs;
      arrive();
      const Slices slices(params_, Share(frame.piece.strips, frame.piece.strips_per_warp(params_)));
      if (Arithmetic::kStraight) {
        if (keeps_sums()) {
          items = FinishItems(params_, frame.cut);
          item = KeptItem(params_, kept(frame), items);
          item.keep();
        } else {
          pairs = pairs_of(frame.piece);
        }
      }
      wait();
      const Exchange exchange(params_.exchange, state_of(frame));
      // One question for all that is rare: code that is jumped over takes time, too.
      if (frame.piece.is_first(frame.cut) && !exchange.enters_plainly()) {
        if (!exchange.enter()) {
          // The other CTA of the cluster may have entered, and meets this one there.
          if (Arithmetic::kStraight && exchange.scrubs()) synchronize();
          leave_cluster();
          break;
        }
        // Packets of one CTA may be all that a cluster sends; they are to say that none of it still rewrites tags. What
        // orders the tags is the fence behind them in scrub(); to meet is for shared memory alone.
        if (exchange.scrubs()) synchronize();
      }
      if (keeps_sums()) {
        if (!Arithmetic::kStraight) {
          items = FinishItems(params_, frame.cut);
          item = KeptItem(params_, kept(frame), items);
        }
        add_up_and_keep(exchange, slices, items, item, kept(frame));
      } else {
        add_up_and_push(exchange, slices, Arithmetic::kStraight ? pairs : pairs_of(frame.piece));
      }
      if (!next_piece(frame)) {
        leave_cluster();
        if constexpr (kEpilogues == Epilogues::kColumn) {
          finish_columns(params_, exchange);
        } else {
          if (!Arithmetic::kStraight || !keeps_sums()) items = FinishItems(params_, frame.cut);
          constexpr bool kNorm = kEpilogues == Epilogues::kRow;
          finish_rows<kNorm, kNorm || Arithmetic::kStraight>(params_, exchange, items, kept(frame));
        }
        exchange.leave();
        break;
      }
    }
    // The other CTAs of the cluster may still read what this one has in shared memory.
    if (params_.k_splits > 1) ptx::cluster_wait();
  }

 private:
  using Shared = typename Arithmetic::Shared;
  using Ring = OperandRing<Arithmetic>;
  using Slices = SliceSums<Arithmetic::kStraight>;
  using Pairs = SumPairs<Arithmetic>;

  // Meets all threads that see the same sums.
  __device__ __forceinline__ void synchronize() const {
    arrive();
    wait();
  }
  // The same in two halves.
  __device__ __forceinline__ void arrive() const {
    if (params_.k_splits > 1) ptx::cluster_arrive_shared();
  }
  __device__ __forceinline__ void wait() const {
    if (params_.k_splits > 1) {
      ptx::cluster_wait_shared();
    } else {
      __syncthreads();
    }
  }

  // This CTA reads nothing more of what the others of its cluster have in shared memory.
  __device__ __forceinline__ void leave_cluster() const {
    if (params_.k_splits > 1) ptx::cluster_arrive();
  }

  // The state by which this CTA acts. A failure may come between the loads of two CTAs of a cluster; where they have to meet
  // again, for other pieces, they act by that of the first. Else each may act by its own: one that does not begin still meets
  // the others where they meet and leaves them its sums until they have read them; one that does begin sends and finishes
  // what it can, and its waits for the rest end by the abort word.
  __device__ __forceinline__ const ExchangeState& state_of(const Frame<Arithmetic>& frame) const {
    if (Arithmetic::kStraight || params_.k_splits == 1) return frame.exchange;
    return *ptx::shared_of_rank(&frame.exchange, 0);
  }

  // How much of a warp's first span sets out before the input is there: all of a short one, or of many tokens
  // (docs/performance.md).
  __device__ __forceinline__ uint32_t groups_ahead() const {
    constexpr uint32_t kLongLog2 = 2;
    constexpr bool kMay = !Arithmetic::kTransforms && Arithmetic::kTokens <= 16;
    return kMay && weights_.log2() >= kLongLog2 ? 1 : ~0u;
  }

  // Starts this warp's weights of a piece on their way.
  __device__ __forceinline__ void begin_weights(const Cut& cut, const Piece<Arithmetic>& piece, const Share& share) {
    const TrellinkSegment& segment = params_.segment[piece.segment];
    const uint32_t count = piece.strips_per_warp(params_);
    const uint32_t block_words = segment.half_bits * kLanes;
    const uint32_t strip = piece.strip - segment.first_strip + share.slot * count;
    const auto* blocks = reinterpret_cast<const uint32_t*>(segment.blocks) +
                         static_cast<uint64_t>(strip) * params_.k_groups * block_words;
    const uint32_t first = share.works() ? share.slice : cut.groups();
    weights_.begin(blocks + cut.first_group * block_words, count, block_words, cut.groups(), first, share.slices,
                   groups_ahead());
  }

  // Brings the first piece's input scales near, which come from memory, but for those that are loaded.
  __device__ __forceinline__ void prefetch_scales(const Cut& cut, const Piece<Arithmetic>& piece) const {
    constexpr uint32_t kLineBytes = 128, kGroupLines = kGroup * sizeof(uint16_t) / kLineBytes;
    const auto* suh = reinterpret_cast<const unsigned char*>(params_.segment[piece.segment].suh);
    const uint32_t end = cut.end_group * kGroupLines;
    const uint32_t begin = (cut.first_group + (Arithmetic::kFewTokens ? kWarps : 0)) * kGroupLines;
    for (uint32_t i = begin + threadIdx.x; i < end; i += blockDim.x) {
      ptx::prefetch_l2(suh + i * kLineBytes);
    }
  }

  // Brings the output scales near, which come from memory and would be waited for in the end. Each CTA some, whoever
  // will need them.
  __device__ __forceinline__ void prefetch_finish() const {
    constexpr uint32_t kLineBytes = 128, kStripLines = kLineBytes / (kTile * sizeof(uint16_t));
    const uint32_t line = blockIdx.x + ptx::grid_ctas() * threadIdx.x;
    const TrellinkSegment& segment = params_.segment[0];
    if (line * kStripLines >= segment.strips) return;
    ptx::prefetch_l2(reinterpret_cast<const unsigned char*>(segment.svh) + line * kLineBytes);
  }

  // Goes on to the next piece, whose weights it starts; false if there is none.
  __device__ __forceinline__ bool next_piece(Frame<Arithmetic>& frame) {
    const Cut cut = frame.cut;
    const Piece<Arithmetic> done = frame.piece;
    Piece<Arithmetic> piece = done;
    if (!piece.next(params_, cut)) return false;
    // The shared input stays if all of K fits and the piece differs in its strips alone.
    const bool stays = cut.groups() <= params_.chunk_groups && piece.segment == done.segment &&
                       piece.first_token == done.first_token;
    // Where weights go are sums that other threads were reading, and the frame holds the piece.
#if __CUDA_ARCH__ >= 900
    ptx::fence_async_copies();
#endif
    synchronize();
    if constexpr (Arithmetic::kSpans) {
      if (Ring::serves(params_)) Ring::init(places_, piece.strips, true);
    }
    const Share share(piece.strips, piece.strips_per_warp(params_));
    begin_weights(cut, piece, share);
    if (ptx::opaque(threadIdx.x) == 0) {
      frame.piece = piece;
      frame.input_is_loaded = stays;
    }
    __syncthreads();
    if (Ring::serves(params_)) first_copy(frame.cut, frame.piece, share).start();
    return true;
  }

  // This lane's of the first copies of a piece's input.
  __device__ __forceinline__ typename Ring::Copy first_copy(const Cut& cut, const Piece<Arithmetic>& piece,
                                                            const Share& share) const {
    if (!share.works()) return {};
    return Ring(params_, places_, cut, piece).first(weights_.record(), share);
  }

  // What is to be done for the chunk of a piece's input that begins with group `chunk`, of those before `end_group`.
  __device__ __forceinline__ InputWork<Arithmetic> input_work(const Piece<Arithmetic>& piece, const Shared& shared,
                                                              uint32_t chunk, uint32_t end_group) const {
    const uint32_t groups = min(params_.chunk_groups, end_group - chunk);
    return {params_, params_.segment[piece.segment], shared, piece.first_token, chunk, groups};
  }

  // The warp's first item of it.
  __device__ __forceinline__ FirstItem<Arithmetic> first_item(const Piece<Arithmetic>& piece, uint32_t chunk,
                                                              uint32_t end_group) const {
    const Shared shared(params_, piece.tokens);
    return FirstItem<Arithmetic>(input_work(piece, shared, chunk, end_group));
  }

  // Does it.
  __device__ __forceinline__ void load_chunk(const Piece<Arithmetic>& piece, uint32_t chunk, uint32_t end_group,
                                             const FirstItem<Arithmetic>& first) const {
    Shared shared(params_, piece.tokens);
    // Else each store would find it out anew.
    shared.base = weights_.record().base.get();
    const InputWork<Arithmetic> work = input_work(piece, shared, chunk, end_group);
#if !TRELLINK_RINGS
    if constexpr (Arithmetic::kHeldTokens > 0) {
      if (params_.operands) {
        const Operands<Arithmetic> operands(params_, piece.segment, piece.first_token / Arithmetic::kTokens);
        copy_operands(operands, shared, chunk, work.groups);
        return;
      }
    }
#endif
    load_input(work, first);
#if __CUDA_ARCH__ >= 900
    // The tensor core reads it as copies would.
    if constexpr (Arithmetic::kHeldTokens > 0) ptx::fence_async_copies();
#endif
  }

  __device__ __forceinline__ void load_later_chunk(const Frame<Arithmetic>& frame, uint32_t chunk) const {
    const uint32_t end_group = frame.cut.end_group;
    auto first = first_item(frame.piece, chunk, end_group);
    first.load();
    load_chunk(frame.piece, chunk, end_group, first);
  }

  // Goes on to the next chunk, whose groups lie `first` behind the cut's; false if there is none.
  __device__ __forceinline__ bool next_chunk(const Frame<Arithmetic>& frame, uint32_t& first) const {
    if (Arithmetic::kStraight) return false;
    first += params_.chunk_groups;
    if (first >= frame.cut.groups()) return false;
    __syncthreads();
    return true;
  }

  // Multiplies the frame's piece, kCount strips to a warp, and leaves each warp's sums in its place.
  template <int kCount>
  __device__ __forceinline__ void multiply(const Frame<Arithmetic>& frame) {
    typename Arithmetic::Accumulator acc[kCount];
    const Ring ring(params_, places_, frame.cut, frame.piece);
    const bool from_ring = Ring::serves(params_);
    uint32_t first = 0;
    do {
      if constexpr (Arithmetic::kTransforms) {
        if (!from_ring) {
          // An empty shard has no input.
          if (frame.cut.groups() == 0) break;
          if (!Arithmetic::kStraight && (first > 0 || !frame.input_is_loaded)) {
            load_later_chunk(frame, frame.cut.first_group + first);
            __syncthreads();
          }
        }
      }
      const Shared shared(params_, frame.piece.tokens);
      // The groups of a slice do not depend on where chunks begin, so neither does the sum.
      StripGemm<Arithmetic, kCount> gemm{shared, weights_, ring, from_ring, first, params_.chunk_groups, acc};
      const TrellinkSegment& segment = params_.segment[frame.piece.segment];
      Arithmetic::Codebooks::run(segment.codebook, segment.half_bits, gemm);
    } while (Arithmetic::kTransforms && !from_ring && next_chunk(frame, first));
    // What the warp has read, sums may replace.
    __syncwarp();
    if (Share(frame.piece.strips, kCount).works()) {
      const Shared shared(params_, frame.piece.tokens);
#pragma unroll
      for (int s = 0; s < kCount; ++s) Arithmetic::store_sums(shared, s, threadIdx.x % kLanes, acc[s]);
    }
  }

  // Whether clusters finish what they have added up: then there is one piece.
  __device__ __forceinline__ bool keeps_sums() const {
    return kEpilogues != Epilogues::kColumn && params_.whole_groups;
  }

  // Where an item's sums are in shared memory.
  struct Kept {
    Shared shared;
    uint32_t first_group, strips_log2;  // of the cluster; of a warp

    // Those of columns 4l .. 4l+3, l being the lane, of the first slice of K; in the end of all. In bytes behind the base.
    __device__ uint32_t at(uint32_t row, uint32_t group, uint32_t lane) const {
      constexpr uint32_t kLanesPerStrip = kTile / 4;
      const uint32_t strip = (group - first_group) * FinishItems::kGroupStrips + lane / kLanesPerStrip;
      return shared.sum_offset(strip >> strips_log2, strip & ((1u << strips_log2) - 1), row, lane % kLanesPerStrip * 4);
    }
    __device__ void load(uint32_t row, uint32_t group, uint32_t lane, float (&v)[4]) const {
      const float4 sums = *reinterpret_cast<const float4*>(from(at(row, group, lane)));
      v[0] = sums.x, v[1] = sums.y, v[2] = sums.z, v[3] = sums.w;
    }
    // What lies there.
    __device__ float* from(uint32_t at) const { return reinterpret_cast<float*>(shared.base + at); }
  };

  // Where the sums of an item are that this warp finishes, and where they go.
  struct KeptItem {
    uint32_t sums;
    Exchange::QuadPlaces places;

    KeptItem() = default;
    __device__ __forceinline__ KeptItem(const TrellinkLinear& params, const Kept& kept, const FinishItems& item) {
      const uint32_t lane = ptx::opaque(threadIdx.x) % kLanes;
      sums = kept.at(item.row(), item.group(), lane);
      places = {params.exchange, item.place(), lane};
    }
    // Keeps it all in registers: it is found out here.
    __device__ __forceinline__ void keep() {
      sums = ptx::opaque(sums);
      places.threes = ptx::opaque(places.threes);
      places.fourth = ptx::opaque(places.fourth);
      places.arena = ptx::opaque(places.arena);
    }
  };

  __device__ __forceinline__ Kept kept(const Frame<Arithmetic>& frame) const {
    return {Shared(params_, frame.piece.tokens), (frame.cut.begin - params_.first_strip) / FinishItems::kGroupStrips,
            frame.piece.strips_per_warp(params_) - 1};
  }

  // Adds up the sums of the items that this warp will finish, sends them to the peers and keeps them where the first
  // slice's were. `first`: of the first item.
  __device__ __forceinline__ void add_up_and_keep(const Exchange& exchange, const Slices& slices, FinishItems item,
                                                  const KeptItem& first, const Kept& kept) const {
    const uint32_t lane = ptx::opaque(threadIdx.x) % kLanes;
    KeptItem at = first;
#pragma unroll 1
    while (item.more()) {
      const auto sum = slices.template add<float4>(kept.from(at.sums));
      exchange.push_to_peers(at.places, lane, sum);
      // Nobody else reads there: other CTAs and warps have other items.
      *reinterpret_cast<float4*>(kept.from(at.sums)) = sum;
      item.next();
      if (item.more()) at = KeptItem(params_, kept, item);
    }
  }

  __device__ __forceinline__ Pairs pairs_of(const Piece<Arithmetic>& piece) const {
    return Pairs(params_, piece, piece.strips_per_warp(params_) - 1);
  }

  // Adds up the sums of a piece and sends them to all ranks, this one included.
  __device__ __forceinline__ void add_up_and_push(const Exchange& exchange, const Slices& slices,
                                                  Pairs pairs) const {
#pragma unroll 1
    for (; pairs.more(); pairs.next()) {
      const auto sum = slices.template add<float2>(pairs.first());
      exchange.push_strip(pairs.has(), pairs.run(), pairs.strip(), sum.x, sum.y);
    }
  }

  const TrellinkLinear& params_;
  WeightStream<Arithmetic::kSpans> weights_;
  RingPlaces& places_;
};

// The body of a kernel. params must be the kernel's __grid_constant__ parameter.
template <class Arithmetic, Epilogues kEpilogues>
__device__ __forceinline__ void linear(const TrellinkLinear& params) {
  if constexpr (kExists<Arithmetic>) {
    __shared__ WarpRecord records[kWarps];
    __shared__ RingPlaces places;
    LinearCta<Arithmetic, kEpilogues>(params, records, places).run();
  } else {
    ptx::trap();
  }
}

}  // namespace trellink

// The kernels of an arithmetic: one for each of the Epilogues.
#define TRELLINK_LINEAR_KERNELS(name, arithmetic)                            \
  TRELLINK_LINEAR_KERNEL(name, kPlain, trellink::arithmetic)                 \
  TRELLINK_LINEAR_KERNEL(name##_row, kRow, trellink::arithmetic)             \
  TRELLINK_LINEAR_KERNEL(name##_column, kColumn, trellink::arithmetic)
// The straight ones of an arithmetic and a format, for rows.
#define TRELLINK_STRAIGHT_MUL1_KERNELS(name, arithmetic, half_bits) \
  TRELLINK_STRAIGHT_KERNELS(name##_mul1_##half_bits, trellink::arithmetic, trellink::Codebook::kMul1, half_bits)
#define TRELLINK_STRAIGHT_MCG_KERNELS(name, arithmetic, half_bits) \
  TRELLINK_STRAIGHT_KERNELS(name##_mcg_##half_bits, trellink::arithmetic, trellink::Codebook::kMcg, half_bits)
#define TRELLINK_STRAIGHT_KERNELS(name, ...)                               \
  TRELLINK_LINEAR_KERNEL(name, kPlain, trellink::Straight<__VA_ARGS__>)    \
  TRELLINK_LINEAR_KERNEL(name##_row, kRow, trellink::Straight<__VA_ARGS__>)
#define TRELLINK_LINEAR_KERNEL(name, epilogues, ...)                              \
  extern "C" __global__ void __launch_bounds__(TRELLINK_LINEAR_THREADS, 1)        \
      trellink_linear_##name(const __grid_constant__ TrellinkLinear params) {     \
    trellink::linear<__VA_ARGS__, trellink::Epilogues::epilogues>(params);        \
  }
