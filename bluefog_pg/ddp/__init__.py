"""`DecentralizedDataParallel` and its parts.

wrapper       the nn.Module that users see
arguments     what it cannot honour of DDP's
cycle         the moments of a training step, in order, whatever the program does
backward      tells when a backward pass is over
lazy          averages that arrive during the forward pass
backward_step optimizer steps in backward()
guards        tensors that raise when they are used
optimizers    tells when the optimizer steps
means         exact averages over all ranks
module_sync   equal models at the start
state         what is saved beside parameters
joining       ranks that run out of data
grad_scaler   one decision of all ranks about scaled gradients
statistics    what it has cost
untraced      what torch.compile leaves alone
"""

from bluefog_pg.ddp.grad_scaler import GradScaler
from bluefog_pg.ddp.statistics import Statistics
from bluefog_pg.ddp.wrapper import DecentralizedDataParallel

__all__ = ["DecentralizedDataParallel", "GradScaler", "Statistics"]
