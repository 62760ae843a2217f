"""The same exact training under many circumstances: one chain of digests, or the circumstance that breaks it.

Each training runs in a process of its own, as somebody else's would: other libraries, numbers of threads, BLAS
kernels, instruction sets, compiled or not, on several devices. With ``--control`` the rounding points are switched
off, so that sums may round again; then the chains must differ, or the comparison could not fail.

    MLP_XP_DATA=… python scripts/same_bits.py --json same-bits.json -- --preset lab --data mnist
    python scripts/same_bits.py --control -- --epochs 2
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from mlp_xp.backend import open_backend
from mlp_xp.cli.progress import progress
from mlp_xp.cli.table import format_table
from mlp_xp.errors import BackendUnavailable
from mlp_xp.files import write_atomically

UMATH = import_module("numpy._core._multiarray_umath")  # has the only list of what can be switched off
STRICT = str(Path(__file__).parent.parent / "tests" / "backends")
EIGHT_DEVICES = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
DISPATCHED = " ".join(name for name in UMATH.__cpu_dispatch__ if UMATH.__cpu_features__.get(name))

CONTROL = """
import sys
import mlp_xp.exactness
from mlp_xp.arithmetic.exact import Exact
Exact._round = lambda self, x, axis, bits: x
mlp_xp.exactness.require_exact = lambda backend: None
from mlp_xp.cli import main
sys.exit(main())
"""


@dataclass(frozen=True)
class Circumstance:
    """Where and how a training is computed.

    Attributes
    ----------
    name : str
    backend : str
    device : str or None
    environment : dict
        Variables of the process.
    slow : bool
        Whether it trains one epoch only.
    """

    name: str
    backend: str
    device: str | None = None
    environment: dict[str, str] = field(default_factory=dict)
    slow: bool = False


CIRCUMSTANCES = (
    Circumstance("NumPy, 1 thread", "numpy", environment={"OPENBLAS_NUM_THREADS": "1"}),
    Circumstance("NumPy, 2 threads", "numpy", environment={"OPENBLAS_NUM_THREADS": "2"}),
    Circumstance("NumPy, OpenBLAS's kernels for Nehalem", "numpy", environment={"OPENBLAS_CORETYPE": "Nehalem"}),
    Circumstance("NumPy, OpenBLAS's kernels for Haswell", "numpy", environment={"OPENBLAS_CORETYPE": "Haswell"}),
    Circumstance("NumPy, OpenBLAS's kernels for SkylakeX", "numpy", environment={"OPENBLAS_CORETYPE": "SkylakeX"}),
    Circumstance(f"NumPy without {DISPATCHED}", "numpy", environment={"NPY_DISABLE_CPU_FEATURES": DISPATCHED}),
    Circumstance("JAX, jit and scan", "jax"),
    Circumstance("JAX, 4 devices share every batch", "jax", "cpu:0-3", EIGHT_DEVICES),
    Circumstance("JAX, 8 devices share every batch", "jax", "cpu:0-7", EIGHT_DEVICES),
    Circumstance("JAX, an operation at a time", "jax", environment={"JAX_DISABLE_JIT": "1"}, slow=True),
    Circumstance("PyTorch", "torch", "cpu"),
    Circumstance("array-api-strict", "strict", slow=True),
    Circumstance("CuPy", "cupy"),
    Circumstance("JAX on a GPU", "jax", "cuda"),
    Circumstance("PyTorch on a GPU", "torch", "cuda"),
)


def available(circumstance: Circumstance) -> bool:
    """Whether its backend and device can be opened here; a span of devices is made by its environment."""
    if circumstance.backend == "strict" or circumstance.environment == EIGHT_DEVICES:
        return True
    if "SkylakeX" in circumstance.name and not UMATH.__cpu_features__["AVX512F"]:
        return False
    try:
        open_backend(circumstance.backend, circumstance.device)
    except BackendUnavailable:
        return False
    return True


def train(circumstance: Circumstance, arguments: Sequence[str], *, control: bool) -> dict[str, Any]:
    """Return what a training in a process of its own left: its curve, description and wall-clock time."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [sys.executable, *(["-c", CONTROL] if control else ["-m", "mlp_xp"]), "train", *arguments]
        command += ["--arithmetic", "exact", "--backend", circumstance.backend, "--out", str(run)]
        command += ["--checkpoint-every", "0"]
        command += ["--device", circumstance.device] if circumstance.device else []
        command += ["--epochs", "1"] if circumstance.slow else []
        path = os.pathsep.join([STRICT, *filter(None, [os.environ.get("PYTHONPATH")])])
        start = time.perf_counter()
        environment = {**os.environ, "PYTHONPATH": path, **circumstance.environment}
        result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603 - itself
        if result.returncode:
            raise SystemExit(f"{circumstance.name}: {result.stderr}")
        curve = [json.loads(line) for line in (run / "curve.jsonl").read_text().splitlines()]
        described = json.loads((run / "run.json").read_text())["backend"]
    return {
        "name": circumstance.name,
        "environment": circumstance.environment,
        "backend": described,
        "seconds": time.perf_counter() - start,
        "curve": curve,
    }


def main(arguments: Sequence[str]) -> int:
    """Train everywhere, print a table, and return 1 if not all agree (with ``--control``: if all do)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--control", action="store_true", help="switch the rounding points off")
    parser.add_argument("--only", default="", metavar="TEXT", help="circumstances whose name has this in it")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all of it")
    parser.add_argument("options", nargs="*", help="of mlp-xp train, after --")
    options = parser.parse_args(arguments)
    chosen = [one for one in CIRCUMSTANCES if options.only in one.name]
    here = [one for one in chosen if available(one)]
    if not here:
        parser.error(f"--only {options.only}: no such circumstance here")
    runs = [train(one, options.options, control=options.control) for one in progress(here, len(here), "circumstances")]
    reference = runs[0]["curve"]
    rows = []
    for run in runs:
        last = run["curve"][-1]
        same = last["sha256_chain"] == reference[last["epoch"]]["sha256_chain"]
        accuracy = "-" if last["accuracy"] is None else f"{last['accuracy']:.2%}"
        rows.append(
            (run["name"], str(len(run["curve"])), accuracy, last["sha256_chain"][:16], "same" if same else "OTHER")
        )
    print(format_table(("circumstance", "epochs", "test accuracy", "chain after the last", "bits"), rows))
    for one in chosen:
        if one not in here:
            print(f"not here: {one.name}")
    if options.json:
        content = {"arguments": list(arguments), "numpy": np.__version__, "runs": runs}
        write_atomically(options.json, f"{json.dumps(content, indent=1)}\n".encode())
    different = any(row[-1] != "same" for row in rows)
    return int(different is not options.control)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
