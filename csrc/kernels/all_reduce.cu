// The sum of a tensor over all ranks, for what no fused layer sums.
#include "reduce/one_shot.cuh"
#include "reduce/two_shot.cuh"

namespace trellink {

// What both forms have in common; `reduce` is what is done once the exchange has been entered.
template <class Reduce>
__device__ __forceinline__ void exchanged(const TrellinkAllReduce& params, ExchangeState& state, Reduce&& reduce) {
  // A peer may fail while this CTA begins: its threads go on together or not at all.
  if (!__syncthreads_and(!state.ends())) state.stop = TRELLINK_STATE_ABORTED;
  const Exchange exchange(params.exchange, state);
  if (!exchange.enter()) return;
  reduce(exchange);
  exchange.leave();
}

template <uint32_t kWords>
__device__ __forceinline__ void all_reduce(const TrellinkAllReduce& params, ExchangeState& state) {
  if (params.form == TRELLINK_REDUCE_ONE_SHOT) {
    // Its first loads are under way while the state is waited for.
    OneShot<kWords> one_shot(params);
    exchanged(params, state, [&](const Exchange& exchange) { one_shot.run(exchange); });
  } else {
    exchanged(params, state, [&](const Exchange& exchange) { two_shot<kWords>(params, exchange); });
  }
}

}  // namespace trellink

extern "C" __global__ void __launch_bounds__(TRELLINK_REDUCE_MAX_THREADS, 1)
    trellink_all_reduce(const __grid_constant__ TrellinkAllReduce params) {
  trellink::ptx::grid_dependency_wait();
  auto state = trellink::ExchangeState::load(params.exchange);
  if (params.x_dtype == TRELLINK_DTYPE_F32) {
    trellink::all_reduce<trellink::kFloatWords>(params, state);
  } else {
    trellink::all_reduce<trellink::kHalfWords>(params, state);
  }
}
