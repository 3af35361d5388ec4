"""What a round of a topology costs: messages, bytes, and predicted time.

The time of a message of S bytes over a link is latency + S / bandwidth. A rank sends its messages
one after the other and receives likewise, both at once (full duplex); a round takes as long as its
busiest rank.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .facts import messages

if TYPE_CHECKING:
    from scipy.sparse import csr_array

MESSAGE_BYTES = 100_000_000
"""Default size of a model: 25 million parameters in float32, such as ResNet-50's."""


@dataclass(frozen=True)
class Link:
    """How fast one rank sends to another, while all others are as busy."""

    latency: float
    """Seconds from the call to the end of a message without content."""
    bandwidth: float
    """Bytes per second."""

    def __post_init__(self) -> None:
        if not (self.latency >= 0 and self.bandwidth > 0):  # NaN too
            raise ValueError(
                f"a link needs a latency of 0 s or more and a bandwidth above 0 bytes/s, got "
                f"{self.latency} s and {self.bandwidth} bytes/s"
            )

    def seconds(self, nbytes: float) -> float:
        """Returns the time of a message of `nbytes`."""
        return self.latency + nbytes / self.bandwidth


@dataclass(frozen=True)
class Links:
    """Links between ranks of one host and between hosts; `bluefog_pg.probe_links` measures them.

    The defaults stand for shared memory, and for 10 Gbit/s Ethernet with TCP.
    """

    same_host: Link = Link(latency=20e-6, bandwidth=5e9)
    other_host: Link = Link(latency=50e-6, bandwidth=1.25e9)
    hosts: tuple[int, ...] | None = None
    """The host of each rank; None where it is not known."""

    def to_dict(self) -> dict[str, Any]:
        """Returns what `from_dict` takes back, fit for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Links":
        """Returns the Links that `to_dict` made `values` of; raises ValueError for other values."""
        try:
            near, far, hosts = values["same_host"], values["other_host"], values["hosts"]
            return cls(Link(**near), Link(**far), None if hosts is None else tuple(hosts))
        except (KeyError, TypeError) as error:
            raise ValueError(f"this is not what Links.to_dict() returns: {error!r}") from None


def hosts_of(n: int, links: Links, ranks_per_host: int | None = None) -> npt.NDArray[np.int64]:
    """Returns the host of each of n ranks.

    With `ranks_per_host`, that many consecutive ranks share a host; else `links.hosts` tells; else
    each rank is its own host.

    Raises:
        ValueError: ranks_per_host is below 1, or `links` was measured with another number of ranks.
    """
    if ranks_per_host is not None:
        if ranks_per_host < 1:
            raise ValueError(f"ranks_per_host must be at least 1, got {ranks_per_host}")
        return np.arange(n) // ranks_per_host
    if links.hosts is None:
        return np.arange(n)
    if len(links.hosts) != n:
        raise ValueError(f"links were measured between {len(links.hosts)} ranks, not n={n}")
    return np.array(links.hosts)


def degrees(w: "csr_array") -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Returns how many others each rank hears, and how many it sends to, in a round."""
    receivers, senders = messages(w)
    n = w.shape[0]
    return np.bincount(receivers, minlength=n), np.bincount(senders, minlength=n)


def largest_degree(matrices: "Sequence[csr_array]") -> int:
    """Returns the most messages that a rank receives or sends in one of these rounds."""
    return int(max(count.max() for w in matrices for count in degrees(w)))


def round_seconds(
    w: "csr_array", nbytes: float, links: Links, hosts: npt.NDArray[np.int64]
) -> float:
    """Returns the predicted time of a round in which each message has `nbytes`."""
    receivers, senders = messages(w)
    if not receivers.size:
        return 0.0
    near, far = links.same_host.seconds(nbytes), links.other_host.seconds(nbytes)
    seconds = np.where(hosts[receivers] == hosts[senders], near, far)
    return float(max(np.bincount(at, seconds).max() for at in (receivers, senders)))


def allreduce_seconds(nbytes: float, links: Links, hosts: Sequence[int]) -> float:
    """Returns the predicted time of a ring all-reduce: 2(n-1) steps of nbytes/n each."""
    n = len(hosts)
    slowest = links.same_host if len(set(hosts)) == 1 else links.other_host
    return 2 * (n - 1) * slowest.seconds(nbytes / n)
