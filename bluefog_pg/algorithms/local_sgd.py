from bluefog_pg.algorithms.local_steps import LocalSteps
from bluefog_pg.algorithms.registry import register
from bluefog_pg.blocks.block import Block
from bluefog_pg.topology.arguments import check_int


@register("local_sgd")
class LocalSGD(LocalSteps):
    """Local SGD: steps on each rank for itself, then the exact average (arXiv:1805.09767).

    x' = x - lr g(x);  after every H steps x' <- mean(x'), the mean over all ranks, by allreduce

    No topology. With H = 1 and SGD it is the centralized step. Any optimizer; its state stays on
    its rank. Memory: that of the average, as large as x.
    """

    def __init__(self, every: int = 8) -> None:
        super().__init__(every)


@register("post_local_sgd")
class PostLocalSGD(LocalSGD):
    """Post-local SGD: centralized steps at first, then local SGD (arXiv:1808.07217).

    x' = x - lr mean(g(x)) in the first `warmup` steps, x' = x - lr g(x) from then on, and after
    every H of these x' <- mean(x')

    No topology. Memory: the gradients (`gradient_allreduce`) and the average, each as large as x.

    Args:
        warmup: steps, 0 or more.
        every: H, 1 or more.
    """

    memory = 2

    def __init__(self, warmup: int = 100, every: int = 8) -> None:
        super().__init__(every)
        self.warmup = check_int("warmup", warmup, 0)

    def communicates(self, step: int) -> bool:
        return step < self.warmup or super().communicates(step - self.warmup)

    def gradients_ready(self, block: Block) -> None:
        if block.network.step < self.warmup:
            block.start_gradient()

    def after_backward(self, block: Block) -> None:
        if block.network.step < self.warmup:
            block.finish_gradient()

    def after_step(self, block: Block) -> None:
        if block.network.step >= self.warmup:
            super().after_step(block)
