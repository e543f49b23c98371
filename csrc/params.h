/* What the host passes to the kernels: plain C, read by nvcc, by the host build and by bindgen.
 * Every field has a fixed width and natural alignment; src/ffi/bindings.rs is generated from this file. */
#ifndef TRELLINK_PARAMS_H
#define TRELLINK_PARAMS_H

#include <stdint.h>

/* Ranks of a group at most. */
#define TRELLINK_MAX_WORLD 8
/* Linears that one launch computes at most. */
#define TRELLINK_MAX_SEGMENTS 8
/* Threads of a CTA of the linear kernels. */
#define TRELLINK_LINEAR_THREADS 512
/* Threads of a CTA of the transform kernel. */
#define TRELLINK_TRANSFORM_THREADS 128
/* CTAs of a launch that exchanges, at most. */
#define TRELLINK_MAX_CTAS 256
/* Threads of a CTA of the stream kernel, and how many CTAs share an SM: 1536 threads, which every SM holds. */
#define TRELLINK_STREAM_THREADS 512
#define TRELLINK_STREAM_CTAS_PER_SM 3

/* Threads of a CTA of the all-reduce kernel at most. */
#define TRELLINK_REDUCE_MAX_THREADS 512

/* Threads of the CTA that probes a link, and u64 words of a mailbox: no more than the smallest arena that two
 * ranks can share. */
#define TRELLINK_LINK_PROBE_THREADS 64
#define TRELLINK_LINK_PROBE_WORDS 512

/* Element types of activations and outputs. */
#define TRELLINK_DTYPE_F16 0
#define TRELLINK_DTYPE_BF16 1
#define TRELLINK_DTYPE_F32 2

/* What happens to a finished output value. */
#define TRELLINK_EPILOGUE_STORE 0
#define TRELLINK_EPILOGUE_ADD 1

/* How an all-reduce moves its values, see csrc/reduce. */
#define TRELLINK_REDUCE_ONE_SHOT 0
#define TRELLINK_REDUCE_TWO_SHOT 1

/* TrellinkReport::state and TrellinkControl::failed. */
#define TRELLINK_STATE_OK 0
#define TRELLINK_STATE_PEER_TIMEOUT 1
#define TRELLINK_STATE_PEER_AHEAD 2
#define TRELLINK_STATE_ABORTED 3
#define TRELLINK_STATE_MISMATCH 4

/* TrellinkLinkVerdict::state: what was found of the way from the peer to this device. */
#define TRELLINK_LINK_UNFINISHED 0
#define TRELLINK_LINK_GOOD 1
/* A packet, or a flag, has not arrived before the deadline. */
#define TRELLINK_LINK_NO_PACKET 2
#define TRELLINK_LINK_NO_FLAG 3
/* 128 bits that nobody has written together. */
#define TRELLINK_LINK_TORN_PACKET 4
/* Words that were not there although the flag behind them was. */
#define TRELLINK_LINK_STALE_DATA 5
/* A load from the peer's memory gave something else than what lies there. */
#define TRELLINK_LINK_WRONG_LOAD 6

/* Per-rank words in device memory that outlive a launch. */
typedef struct TrellinkControl {
  /* A TRELLINK_STATE_*; once not OK, launches return without touching their outputs. */
  uint32_t failed;
  /* Tags are renewed in epochs e with (e & scrub_mask) <= 1. */
  uint32_t scrub_mask;
} TrellinkControl;

/* What a call is, as far as all ranks must agree on it; src/protocol/operation.rs writes it. */
typedef struct TrellinkOperation {
  /* Below 2^16: what packets carry of it. */
  uint32_t tag;
  /* For the host, which tells people of it; kernels only pass it on. */
  uint32_t form;
  uint32_t rows;
  uint32_t layer;
  uint64_t columns;
} TrellinkOperation;

/* One rank's part of the group's board, in host-mapped memory: what a failed wait leaves for the host,
 * `state` last, and how long waits may last, which the host may change at any time. */
typedef struct TrellinkReport {
  uint32_t state;
  uint32_t rank;
  uint32_t peer;
  uint32_t epoch;
  /* The tag of the packet that should not be there. */
  uint32_t found;
  /* Which 128 packets of the slot were waited for; of a linear's message: row * groups + group. */
  uint32_t tile;
  uint64_t waited_ns;
  uint64_t timeout_ns;
  TrellinkOperation operation;
} TrellinkReport;

/* One rank's view of the exchange. All pointers are device addresses valid on this rank's device. */
typedef struct TrellinkExchange {
  /* arena[r]: the packets of rank r's arena; the own one included. */
  uint64_t arena[TRELLINK_MAX_WORLD];
  /* TrellinkControl of this rank. */
  uint64_t control;
  /* u32 [TRELLINK_MAX_CTAS], all the same between launches: the epoch of the next call. A CTA reads the
   * word of its number and advances those that no other CTA of the launch does. */
  uint64_t epochs;
  /* TrellinkReport of this rank. */
  uint64_t report;
  /* A u32 that is not 0 once any rank of the group has failed; host-mapped. */
  uint64_t abort;
  /* The stop word of this rank's arena (comm/arena_layout.h). */
  uint64_t stop;
  /* Packets in a slot: what one source may send in one call. Even. */
  uint64_t slot_packets;
  uint32_t rank;
  uint32_t world;
  /* The call that the launch belongs to. */
  TrellinkOperation operation;
} TrellinkExchange;

/* One linear of a launch. */
typedef struct TrellinkSegment {
  /* u32 blocks [strips][k_groups], see csrc/format/block.h. 16-byte aligned. */
  uint64_t blocks;
  /* f16 [K]. */
  uint64_t suh;
  /* f16 [N]. */
  uint64_t svh;
  /* f32 [N], or 0. */
  uint64_t bias;
  /* First output element of this launch: row 0, column 0 of the segment. */
  uint64_t out;
  /* Elements from one output row to the next. */
  uint64_t out_stride;
  /* First 16-column strip of the segment in the launch's numbering, and how many it has (a multiple of 8). */
  uint32_t first_strip;
  uint32_t strips;
  /* 0: 3inst, 1: mcg, 2: mul1. */
  uint32_t codebook;
  /* Twice the bits per weight. */
  uint32_t half_bits;
  /* TRELLINK_DTYPE_*, TRELLINK_EPILOGUE_*. */
  uint32_t out_dtype;
  uint32_t epilogue;
} TrellinkSegment;

/* What becomes of the finished rows of a launch that has one segment: their RMSNorm, if it computes whole rows,
 * or what another launch needs to normalise them. */
typedef struct TrellinkNorm {
  /* First element of this launch: row 0. Rows are as far apart as the segment's. 0: no norm. */
  uint64_t out;
  /* [N]. */
  uint64_t weight;
  /* What is added to the mean of the squares, and 1 / N. */
  float epsilon;
  float inverse_n;
  /* TRELLINK_DTYPE_*; of the output F16 or BF16. */
  uint32_t out_dtype;
  uint32_t weight_dtype;
  /* f32 [rows][square_stride], row 0 of this launch: the sum of the squares of each 128 columns, as they are
   * stored. 0: none. */
  uint64_t squares;
  uint64_t square_stride;
} TrellinkNorm;

/* What finished values of a launch go through besides that does not exchange with other ranks. */
typedef struct TrellinkColumns {
  /* f32 [rows][k_groups], row 0 of this launch: the sum of the squares of each 128 inputs, for outputs that are
   * those of a normalised input. 0: as it is. */
  uint64_t squares;
  /* What is added to the mean of the squares, and 1 / K. */
  float epsilon;
  float inverse_k;
  /* Not 0: the launch has two segments of the same columns, all of them; the output of segment 0 gets
   * silu(segment 0) * segment 1. */
  uint32_t gated;
  uint32_t reserved;
} TrellinkColumns;

/* One launch of the linear kernel. */
typedef struct TrellinkLinear {
  /* Activations [rows][K], row 0 of this launch. */
  uint64_t x;
  /* Elements from one input row to the next. */
  uint64_t x_stride;
  uint32_t x_dtype;
  uint32_t rows;
  /* K / 128 of this rank's shard; 0 for an empty shard. */
  uint32_t k_groups;
  uint32_t segments;
  /* The launch computes strips [first_strip, first_strip + strips) of its segments' numbering;
   * both multiples of 8. */
  uint32_t first_strip;
  uint32_t strips;
  /* CTAs of a cluster, which share K: 2, or 1 without clusters. */
  uint32_t k_splits;
  /* Every cluster gets `units` times what its warps keep together of the strips, the first `more_units`
   * clusters one more. */
  uint32_t units;
  uint32_t more_units;
  /* Not 0: that is whole groups of 128 columns for every cluster, of one segment, and all rows are of one pass. So
   * clusters finish what they add up. */
  uint32_t whole_groups;
  /* Bytes of dynamic shared memory of the launch, and those of them for each warp's weights and sums. */
  uint32_t shared_bytes;
  uint32_t warp_bytes;
  /* K groups whose input the CTAs hold at a time, at least 1, where they transform it themselves. Whole spans,
   * or all groups. */
  uint32_t chunk_groups;
  /* log2 of the K groups that a warp takes at a time, a span. */
  uint32_t span_log2;
  /* Spans that the warps of a slice of K have places for, where the input is transformed. */
  uint32_t places;
  /* Half bits up to which a warp takes two strips at once, where the arithmetic knows that; beyond, one. */
  uint32_t paired_half_bits;
  /* What a launch of the transform kernel made of the input, or 0: then every CTA transforms for itself. */
  uint64_t operands;
  /* Bytes from a segment's operands to the next one's. */
  uint64_t operand_stride;
  TrellinkNorm norm;
  TrellinkColumns columns;
  TrellinkExchange exchange;
  TrellinkSegment segment[TRELLINK_MAX_SEGMENTS];
} TrellinkLinear;

/* One launch of a transform kernel: the input of a linear launch for MMAs, in the layout of
 * csrc/linear/operands.cuh. */
typedef struct TrellinkTransform {
  /* As in TrellinkLinear. */
  uint64_t x;
  uint64_t x_stride;
  uint32_t rows;
  uint32_t k_groups;
  uint32_t segments;
  uint32_t reserved;
  uint64_t operands;
  uint64_t operand_stride;
  /* f16 [K] of each segment. */
  uint64_t suh[TRELLINK_MAX_SEGMENTS];
} TrellinkTransform;

/* One launch of the all-reduce kernel: out = epilogue(sum of x over the ranks). */
typedef struct TrellinkAllReduce {
  /* First elements of this launch, 16-byte aligned; may be the same. */
  uint64_t x;
  uint64_t out;
  /* Groups of eight elements; at least one. */
  uint32_t octets;
  /* Two-shot form: chunks that a rank's part is cut into; the same on all ranks. */
  uint32_t chunks;
  /* TRELLINK_DTYPE_*, TRELLINK_EPILOGUE_*, TRELLINK_REDUCE_*; the same on all ranks. */
  uint32_t x_dtype;
  uint32_t out_dtype;
  uint32_t epilogue;
  uint32_t form;
  TrellinkExchange exchange;
} TrellinkAllReduce;

/* What a probe leaves, in host-mapped memory. */
typedef struct TrellinkLinkVerdict {
  /* TRELLINK_LINK_*. */
  uint32_t state;
  /* The round in which the probe ended: all, if the link is good. */
  uint32_t round;
  /* The word of the mailbox, what it should have held, and what was read last. */
  uint32_t word;
  uint32_t reserved;
  uint64_t expected;
  uint64_t found;
  /* From the end of the first round to the end of the last. */
  uint64_t elapsed_ns;
} TrellinkLinkVerdict;

/* One side of a probe: a launch of one CTA, while the peer launches the other side. */
typedef struct TrellinkLinkProbe {
  /* u64 [TRELLINK_LINK_PROBE_WORDS] each: the mailbox that the peer writes to and the one that this device
   * does. Every word of them is 0 or from a probe with lesser tags. */
  uint64_t own;
  uint64_t peer;
  /* TrellinkLinkVerdict. */
  uint64_t verdict;
  /* How long the probe may last. */
  uint64_t timeout_ns;
  /* Round r has the tag first_tag + r; not 0, and the same on both sides. */
  uint32_t first_tag;
  uint32_t rounds;
} TrellinkLinkProbe;

/* One launch of the decode kernel: blocks to the decoded matrix. */
typedef struct TrellinkDecode {
  /* u32 blocks [strips][k_groups]. */
  uint64_t blocks;
  /* f16 [K][N], row-major. */
  uint64_t out;
  uint32_t strips;
  uint32_t k_groups;
  uint32_t codebook;
  uint32_t half_bits;
} TrellinkDecode;

/* One launch of the stream kernel: reads memory once. */
typedef struct TrellinkStream {
  /* What is read, 16-byte aligned. */
  uint64_t source;
  /* How much: 16-byte chunks. */
  uint64_t chunks;
  /* A u32 into which each thread XORs the words that it has read, if they have a bit of `mask` in common.
   * With a mask of 0 nothing is written and the pointer may be 0. */
  uint64_t sum;
  uint32_t mask;
  uint32_t reserved;
} TrellinkStream;

#endif
