// One side of a link's probe, before a group is used.
#include "comm/link_probe.cuh"

// One CTA; the peer launches the same.
extern "C" __global__ void __launch_bounds__(TRELLINK_LINK_PROBE_THREADS, 1)
    trellink_link_probe(const __grid_constant__ TrellinkLinkProbe params) {
  trellink::LinkProbe(params).run();
}
