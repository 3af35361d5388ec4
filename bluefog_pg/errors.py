"""What goes wrong in neighbor operations, and in collectives over shared memory, as exceptions.

Wrong arguments of the caller are ValueError or TypeError, as everywhere. The classes below are for
what happens between ranks; the C++ extension raises them, from the call itself or from `Work.wait`.
"""

from torch.distributed import DistBackendError


class BluefogError(DistBackendError):
    """A neighbor operation failed; raised itself where the operating system refused something."""


class MismatchError(BluefogError, ValueError):
    """Neighbours disagree about an operation: dtype, shape, number of tensors, step, direction.

    Both ends of the edge raise it, outputs are untouched, and the group stays usable.
    """


class NeighborTimeoutError(BluefogError):
    """Neighbours did not come before the deadline; the message names them.

    The deadline is the group's timeout: ``init_process_group(timeout=...)``.
    """


class PeerLostError(BluefogError):
    """A neighbour's process ended, or the connection with it broke."""


class AbortedError(BluefogError):
    """The process group was destroyed or aborted while the operation was pending."""
