// The sum of a tensor over all ranks, for what no fused layer sums.
#include "reduce/one_shot.cuh"
#include "reduce/two_shot.cuh"

namespace trellink {

template <uint32_t kWords>
__device__ __forceinline__ void all_reduce(const TrellinkAllReduce& params, const Exchange& exchange) {
  if (params.form == TRELLINK_REDUCE_ONE_SHOT) {
    one_shot<kWords>(params, exchange);
  } else {
    two_shot<kWords>(params, exchange);
  }
}

}  // namespace trellink

extern "C" __global__ void __launch_bounds__(TRELLINK_REDUCE_MAX_THREADS, 1)
    trellink_all_reduce(const __grid_constant__ TrellinkAllReduce params) {
  trellink::ptx::grid_dependency_wait();
  auto state = trellink::ExchangeState::load(params.exchange);
  state.settle(params.exchange);
  // A peer may fail while this CTA begins: its threads go on together or not at all.
  if (!__syncthreads_and(state.failed == TRELLINK_STATE_OK)) return;
  const trellink::Exchange exchange(params.exchange, state);
  if (!exchange.enter()) return;
  if (params.x_dtype == TRELLINK_DTYPE_F32) {
    trellink::all_reduce<trellink::kFloatWords>(params, exchange);
  } else {
    trellink::all_reduce<trellink::kHalfWords>(params, exchange);
  }
  exchange.leave();
}
