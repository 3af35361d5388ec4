from bluefog_pg.algorithms.algorithm import Algorithm
from bluefog_pg.algorithms.registry import register
from bluefog_pg.blocks.block import Block
from bluefog_pg.blocks.network import ALL


@register("gradient_allreduce")
class GradientAllreduce(Algorithm):
    """Gradient allreduce: the centralized step of DistributedDataParallel, to compare with.

    x' = x - lr mean(g(x)), the mean over all ranks, by allreduce

    No topology. The gradients are averaged before backward() returns, so clipping and GradScaler
    see the mean, as with DDP. A parameter without a gradient on any rank keeps none (DDP's
    find_unused_parameters=True). The blocks' allreduces are all under way at once at the end of
    backward(), and none before: DDP overlaps them with backward(), this does not.

    Memory: the gradients once more, flat; parameter.grad is a view of it. Buffers are averaged in
    every step, where DDP copies rank 0's. Any optimizer.
    """

    messages, allreduces = 0, 1
    keeps_dtype = "it averages over all ranks, by allreduce"
    buffers_over = ALL

    def gradients_ready(self, block: Block) -> None:
        block.start_gradient()

    def after_backward(self, block: Block) -> None:
        block.finish_gradient()
