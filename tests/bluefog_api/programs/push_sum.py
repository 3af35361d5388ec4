"""Push-sum on a directed, time-varying graph whose plain averages would be biased."""

import torch

import bluefog_pg.torch as bf
from bluefog_pg.torch import topology_util

bf.init(topology_fn=topology_util.MeshGrid2DGraph)
torch.manual_seed(123)
x = torch.randn(10, dtype=torch.double) + bf.rank()
mean = bf.allreduce(x)
p = torch.DoubleTensor([1.0])

dynamic = topology_util.GetDynamicOnePeerSendRecvRanks(bf.load_topology(), bf.rank())
for _ in range(150):
    dst_neighbors, src_neighbors = next(dynamic)
    self_weight = 1 / (len(dst_neighbors) + 1)
    dst_weights = {r: self_weight for r in dst_neighbors}
    src_weights = {r: 1 for r in src_neighbors}
    x = bf.neighbor_allreduce(
        x, name="x", self_weight=self_weight, src_weights=src_weights, dst_weights=dst_weights
    )
    p = bf.neighbor_allreduce(
        p, name="p", self_weight=self_weight, src_weights=src_weights, dst_weights=dst_weights
    )

assert torch.norm(x / p - mean) < 1e-10
assert abs(bf.allreduce(p, average=False).item() - bf.size()) < 1e-12
print(f"[{bf.rank()}] p = {p.item():.4f}")
bf.shutdown()
