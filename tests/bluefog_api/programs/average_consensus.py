"""Average consensus, static and one-peer, blocking and not."""

import torch

import bluefog_pg.torch as bf
from bluefog_pg.torch import topology_util

bf.init()
torch.manual_seed(bf.rank())
data = torch.randn(1000, dtype=torch.double)
mean = bf.allreduce(data, name="mean")

# static
x = data.clone()
for _ in range(100):
    x = bf.neighbor_allreduce(x, name="x")
assert torch.norm(x - mean) / torch.norm(mean) < 1e-12

# the weights of Metropolis and Hastings count only if we say so
bf.set_topology(topology_util.StarGraph(bf.size()), is_weighted=True)
x = data.clone()
for _ in range(200):
    x = bf.neighbor_allreduce(x, name="x")
assert torch.norm(x - mean) / torch.norm(mean) < 1e-10

# dynamic: exact after log2(size) steps
bf.set_topology(topology_util.ExponentialTwoGraph(bf.size()))
x = data.clone()
generator = topology_util.GetDynamicOnePeerSendRecvRanks(bf.load_topology(), bf.rank())
for _ in range((bf.size() - 1).bit_length()):
    dst_ranks, src_ranks = next(generator)
    weight = 1 / (len(src_ranks) + 1)
    handle = bf.neighbor_allreduce_nonblocking(
        x,
        name="x",
        self_weight=weight,
        src_weights={r: weight for r in src_ranks},
        dst_weights=dst_ranks,
        enable_topo_check=False,
    )
    x = bf.synchronize(handle)
assert torch.norm(x - mean) / torch.norm(mean) < 1e-14

print(f"[{bf.rank()}] consensus")
bf.shutdown()
