"""Two ranks in network namespaces of their own, joined by one link whose rate can be set.

Needs root, and `unshare`, `ip` and `tc` (Debian: util-linux, iproute2). Namespaces and link end
with the processes, however these end; nothing has to be removed.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence

DEVICE = "link0"
PORT = 29500  # of the store; in a namespace of our own all ports are free
# Bytes of a frame. A NIC cuts what the kernel gives it, up to 64 KB, into the frames of the wire,
# and puts together what arrives. With frames of 1500 bytes the ranks' cores would do that here.
MTU = 65_000
TOOLS = ("unshare", "ip", "tc")


def why_not() -> str | None:
    """Returns why this machine cannot do it, or None."""
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    if missing:
        return f"there is no {', '.join(missing)} (apt-get install util-linux iproute2)"
    tried = subprocess.run(
        ["unshare", "-n", "sh", "-c", "ip link add link0 type veth peer name link1 && "
         "tc qdisc add dev link0 root tbf rate 1mbit burst 32kb latency 50ms"],
        capture_output=True,
        text=True,
    )  # fmt: skip
    return None if tried.returncode == 0 else f"no network namespaces: {tried.stderr.strip()}"


def start(arguments: Sequence[str], timeout: float) -> int:
    """Runs this script as ranks 0 and 1; returns the worst exit status, or 1 after `timeout` s."""
    ranks = [_start_rank(rank, arguments) for rank in range(2)]
    try:
        for rank in ranks:
            rank.stdout.readline()  # it is in its namespace
        _link(ranks[0].pid, ranks[1].pid)
        for rank in ranks:
            rank.stdin.close()
        sys.stdout.writelines(ranks[0].stdout)
        return max(abs(rank.wait(timeout)) for rank in ranks)
    except subprocess.TimeoutExpired:
        print(f"# no end after {timeout} s")
        return 1
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()


def join(mtu: int = MTU) -> int:
    """Called by each rank first: waits for its end of the link, and takes its address."""
    print("in its namespace", flush=True)
    sys.stdin.read()
    rank = int(os.environ["RANK"])
    _run("ip", "link", "set", "lo", "up")
    _run("ip", "address", "add", f"{address(rank)}/24", "dev", DEVICE)
    _run("ip", "link", "set", DEVICE, "mtu", str(mtu), "up")
    return rank


def set_rate(bytes_per_second: float | None, mtu: int = MTU) -> None:
    """Limits what this rank sends; None: no limit. Bursts: those of 4 ms, at least two frames."""
    subprocess.run(["tc", "qdisc", "del", "dev", DEVICE, "root"], capture_output=True)
    if bytes_per_second is not None:
        burst = int(max(2 * mtu, 0.004 * bytes_per_second))
        limits = ["rate", f"{int(8 * bytes_per_second)}bit", "burst", str(burst)]
        limits += ["latency", "400ms"]  # more than fits into the buffers of the sockets
        _run("tc", "qdisc", "add", "dev", DEVICE, "root", "tbf", *limits)


def _start_rank(rank: int, arguments: Sequence[str]) -> subprocess.Popen[str]:
    environment = {
        "RANK": str(rank),
        "WORLD_SIZE": "2",
        "MASTER_ADDR": address(0),
        "MASTER_PORT": str(PORT),
        "GLOO_SOCKET_IFNAME": DEVICE,
        "OMP_NUM_THREADS": "1",
        "TORCH_CPP_LOG_LEVEL": "ERROR",  # addresses have no names
        # Or malloc gives memory back and takes it anew, of which what a step costs depends (by 10 %
        # of it) more than of all that is compared here.
        "MALLOC_MMAP_THRESHOLD_": str(1 << 32),
        "MALLOC_TRIM_THRESHOLD_": str(1 << 34),
    }
    return subprocess.Popen(
        ["unshare", "-n", sys.executable, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )


def _link(pid: int, other: int) -> None:
    names = [f"bluefog{number}" for number in (pid, other)]
    _run("ip", "link", "add", names[0], "type", "veth", "peer", "name", names[1])
    for name, end in zip(names, (pid, other), strict=True):
        _run("ip", "link", "set", name, "netns", str(end), "name", DEVICE)


def address(rank: int) -> str:
    """Returns the rank's address on the link."""
    return f"10.99.0.{rank + 1}"


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip()}")
