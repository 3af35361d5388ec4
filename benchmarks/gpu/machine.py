"""What the figures were taken on, and what was built."""

import json
import shutil
import subprocess
from pathlib import Path

import torch

from gpu.rows import Row, attempt, parser, status


def main() -> int:
    parser(__doc__).parse_args()
    return status([attempt("machine", lambda: {"check": "machine", "ok": True, **machine()})])


def machine() -> Row:
    """Raises ImportError where bluefog cannot be loaded."""
    from bluefog_pg import _build_info
    from bluefog_pg._extension import load_cuda

    module = load_cuda()
    if module is None:
        raise RuntimeError("bluefog_pg was built without its CUDA module: see the log of build")
    query = "--query-gpu=name,driver_version,memory.total"
    found = {
        "torch": torch.__version__,
        "cuda of torch": torch.version.cuda,
        "nvcc": _build_info.CUDA or None,
        "architectures": module.architectures(),
        "commit": _said("git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"),
        "gpu": torch.cuda.get_device_name(0),
        "capability": torch.cuda.get_device_capability(0),
        "nvidia-smi": _said("nvidia-smi", query, "--format=csv,noheader"),
        "nccl": list(torch.cuda.nccl.version()),
        "own communicator": hasattr(module, "load_nccl"),
    }
    return json.loads(json.dumps(found))


def _said(*command: str) -> str | None:
    if shutil.which(command[0]) is None:
        return None
    done = subprocess.run(command, capture_output=True, text=True)
    return done.stdout.strip() if done.returncode == 0 else None


if __name__ == "__main__":
    raise SystemExit(main())
