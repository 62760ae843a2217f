"""Try the loaders on files that nobody would write: mutations of good ones, guided by what code they reach.

    pip install -e '.[fuzz]' && python scripts/fuzz.py --inputs 1000000 --json scripts/results/fuzz.json

Atheris (libFuzzer for Python) instruments this project and the parts of Python and NumPy that it reads files with, and
keeps every input that reaches something new; in most kinds of files, three of four mutations are made inside
(`fuzz_insides`). What counts as a finding is said in `fuzz_targets`; its input is saved in the corpus as
``<loader>/<SHA-1>``, which `tests/test_corpus.py` then tries in every run of the tests.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

NAMES = (
    *("csv", "csv.gz", "npy", "npz", "idx", "idx.gz"),
    *("run.json", "curve.jsonl", "steps.csv", "weights", "checkpoint", "replicas.json", "run", "estimator"),
    *("labels", "interrupted", "start"),
)
INSTRUMENTED = ["mlp_xp", "zipfile", "gzip", "csv", "numpy.lib", "safetensors"]
LARGEST = 8192
"""Bytes of an input."""
MOST_FINDINGS = 20
"""Of a loader, that are kept."""


def fuzz_one(name: str, inputs: int, corpus: Path, seed: int, folder: Path) -> None:
    """Fuzz a loader in this process, which ends with it; the last line it prints is a JSON object."""
    import atheris

    with atheris.instrument_imports(include=INSTRUMENTED):
        from fuzz_insides import INSIDES, mutate
        from fuzz_targets import make_targets, try_file

    target = make_targets(folder)[name]
    result: dict[str, Any] = {"loader": name, "inputs": 0, "findings": [], "slowest": 0.0, "memory": 0.0}
    seeds = folder / "seeds"
    seeds.mkdir()
    for i, content in enumerate(target.seeds):
        (seeds / str(i)).write_bytes(content)

    def try_input(content: bytes) -> None:
        cost, wrong = try_file(target, content)
        result["inputs"] += 1
        result["slowest"] = max(result["slowest"], cost.seconds)
        result["memory"] = max(result["memory"], cost.memory)
        if wrong is not None and wrong not in result["findings"] and len(result["findings"]) < MOST_FINDINGS:
            result["findings"].append(wrong)
            place = corpus / name / hashlib.sha1(content, usedforsecurity=False).hexdigest()
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
            print(f"{place}: {wrong}", file=sys.stderr, flush=True)
        if result["inputs"] in (inputs // 2, inputs):
            print(f"RESULT {json.dumps(result)}", flush=True)

    def mutate_file(content: bytes, most: int, seed: int) -> bytes:
        if seed % 4 == 0 or name not in INSIDES:
            return bytes(atheris.Mutate(content, most))
        return mutate(INSIDES[name], content, most, seed, lambda part, size: bytes(atheris.Mutate(part, size)))

    options = [f"-runs={inputs + 2}", f"-max_len={LARGEST}", f"-seed={seed}", "-timeout=30", "-rss_limit_mb=4096"]
    options.append("-mutate_depth=2")  # more would damage most files beyond all reading
    old = [str(corpus / name)] if (corpus / name).is_dir() else []
    work = folder / "work"
    work.mkdir()
    atheris.Setup([sys.argv[0], *options, str(work), str(seeds), *old], try_input, custom_mutator=mutate_file)
    atheris.Fuzz()


def run(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Fuzz a loader in a process of its own, and return its row of the table."""
    command = [sys.executable, __file__, "--one", name, "--inputs", str(-(-options.inputs // len(options.loader)))]
    command += ["--corpus", str(options.corpus), "--seed", str(options.seed)]
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - files that are in no disk's way
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        command += ["--folder", folder]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)  # noqa: S603
    results = re.findall(r"^RESULT (.*)$", done.stdout, re.MULTILINE)
    row: dict[str, Any] = json.loads(results[-1]) if results else {"loader": name, "inputs": 0, "findings": []}
    covered = re.findall(r"cov: (\d+) ft: (\d+)", done.stderr + done.stdout)
    row["edges"], row["features"] = map(int, covered[-1]) if covered else (0, 0)
    seconds = re.findall(r"Done \d+ runs in (\d+) second", done.stderr + done.stdout)
    row["seconds"] = int(seconds[-1]) if seconds else 0
    if done.returncode != 0 or not results:
        row["findings"].append(f"the process ended with {done.returncode}: {done.stderr[-500:]}")
    print(
        f"{name:12} {row['inputs']:>9,} {row['edges']:>6} {len(row['findings']):>8} {row['seconds']:>7} "
        f"{row.get('slowest', 0):>8.3f} {row.get('memory', 0) / 1e6:>6.1f}",
        *(f"\n    {finding}" for finding in row["findings"]),
        flush=True,
    )
    return row


def main() -> int:
    """Print a row per loader; 1 if there was any finding."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inputs", type=int, default=1_000_000, help="of all loaders together")
    parser.add_argument("--loader", nargs="*", default=list(NAMES), choices=NAMES)
    parser.add_argument("--corpus", type=Path, default=Path("tests/corpus"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, help="file for the table")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        fuzz_one(options.one, options.inputs, options.corpus, options.seed, options.folder)
        return 0
    print("loader          inputs  edges findings seconds  slowest     MB")
    with ThreadPoolExecutor(2) as pool:
        rows = list(pool.map(lambda name: run(name, options), options.loader))
    print(f"{sum(row['inputs'] for row in rows):,} inputs, {sum(len(row['findings']) for row in rows)} findings")
    if options.json:
        result = {"largest_input": LARGEST, "seed": options.seed, "rows": rows}
        options.json.write_text(json.dumps(result, indent=2) + "\n")
    return int(any(row["findings"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
