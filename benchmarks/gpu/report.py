"""Runs parts, each in processes of its own with a time limit, and writes what came of them."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TAIL = 4000  # characters of the output of a part that failed


@dataclass(frozen=True)
class Part:
    """seconds: its time limit. has_rows: whether it reports any, and has failed without."""

    name: str
    command: Sequence[str | Path]
    seconds: float
    environment: Mapping[str, str] = field(default_factory=dict)
    cwd: Path | None = None
    has_rows: bool = True
    skipped: str = ""  # why it is not run


def run(part: Part, folder: Path, seconds_left: float = float("inf")) -> dict[str, Any]:
    """Returns the part of the report; none of the processes that it has started is left."""
    limit = max(0.0, min(part.seconds, seconds_left))
    result: dict[str, Any] = {"part": part.name, "status": "skipped", "seconds": 0.0, "rows": []}
    if part.skipped:
        return result | {"why": part.skipped}
    if limit < 1:
        return result | {"status": "timeout", "why": "no time was left for it"}
    log, rows_file = folder / f"{part.name}.log", folder / f"{part.name}.rows"
    rows_file.unlink(missing_ok=True)
    environment = os.environ | part.environment | {"GPU_CHECK_ROWS": str(rows_file)}
    start = time.monotonic()
    with log.open("w") as output:
        code = _run(part, limit, environment, output)
    result["seconds"] = round(time.monotonic() - start, 1)
    result["rows"] = _rows(rows_file)
    wrong = [row for row in result["rows"] if not row.get("ok", True)]
    if code is None:
        result |= {"status": "timeout", "why": f"it took longer than {limit:.0f} s"}
    elif code or wrong or (part.has_rows and not result["rows"]):
        result |= {"status": "failed", "why": f"exit status {code}, {len(wrong)} wrong rows"}
    else:
        result["status"] = "ok"
    if result["status"] != "ok":
        result["output"] = log.read_text(errors="replace")[-TAIL:]
    return result


def _rows(file: Path) -> list[dict[str, Any]]:
    """Returns what a part has written there, perhaps not to the end of a line."""
    rows = []
    for line in file.read_text().splitlines() if file.exists() else []:
        with suppress(json.JSONDecodeError):
            rows.append(json.loads(line))
    return rows


def _run(part: Part, limit: float, environment: Mapping[str, str], output: Any) -> int | None:
    """Returns the exit status; None where it took too long."""
    process = subprocess.Popen(
        [str(word) for word in part.command],
        cwd=part.cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.STDOUT,
        start_new_session=True,  # a process group of its own, with all that it starts
    )
    try:
        return process.wait(limit)
    except subprocess.TimeoutExpired:
        return None
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def targets(parts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns the rows that have one."""
    return [
        {"part": part["part"], **row} for part in parts for row in part["rows"] if "target" in row
    ]


def write(path: Path, machine: Mapping[str, Any], parts: Sequence[Mapping[str, Any]]) -> int:
    """Writes the report, and returns the exit status: 1 if a part has not gone well. A target that
    was missed is no such failure."""
    bad = [part["part"] for part in parts if part["status"] in ("failed", "timeout")]
    report = {
        "ok": not bad,
        "bad": bad,
        "machine": dict(machine),
        "targets": targets(parts),
        "parts": list(parts),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report, indent=1) + "\n")
    return 1 if bad else 0


def summary(machine: Mapping[str, Any], parts: Sequence[Mapping[str, Any]]) -> str:
    names = ("gpu", "nvidia-smi", "torch", "nccl", "nvcc", "architectures", "nccl way", "commit")
    lines = [f"# {name}: {machine[name]}" for name in names if machine.get(name)]
    lines += ["", f"{'part':<12} {'status':<8} {'seconds':>7} {'right':>6} {'wrong':>6}"]
    for part in parts:
        judged = [row["ok"] for row in part["rows"] if "ok" in row]
        right = sum(judged)
        lines.append(
            f"{part['part']:<12} {part['status']:<8} {part['seconds']:>7.1f} {right:>6} "
            f"{len(judged) - right:>6}  {part.get('why', '')}".rstrip()
        )
    for part in parts:
        for row in part["rows"]:
            if not row.get("ok", True):
                says = row.get("error") or f"{row.get('wrong')} wrong"
                last = str(says).strip().splitlines()[-1]
                lines.append(f"WRONG  {part['part']}: {row['check']}: {last[:200]}")
    measured = [(part["part"], row) for part in parts for row in part["rows"] if "value" in row]
    if measured:
        lines.append("")
    for name, row in measured:
        goal = ""
        if "target" in row:
            goal = f"  target {row['target']}: {'met' if row['met'] else 'MISSED'}"
        lines.append(f"{name}: {row['check']}: {row['value']} {row['unit']}{goal}")
    return "\n".join(lines)
