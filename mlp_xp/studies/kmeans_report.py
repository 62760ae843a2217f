"""What `mlp_xp.studies.kmeans` found, as a table, as claims, and as JSON."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from mlp_xp.clustering.deviations import Deviations
from mlp_xp.studies.kmeans import MAX_ITER, METRICS, Findings, Nested, Run
from mlp_xp.studies.report import Claim, Report

HEADER = ("clusters", "J (l2)", "within", "between", "total", "iterations", "J (l1)", "iterations (l1)")


def report(findings: Findings, backend: dict[str, Any]) -> Report:
    """Return the study's report."""
    rows = [_row(*both) for both in zip(*(findings.nested[metric] for metric in METRICS), strict=True)]
    points, on_worked = findings.worked
    data = {
        "backend": backend,
        "dtype": findings.dtype,
        "arithmetic": findings.arithmetic,
        "n_rows": findings.n_rows,
        "n_rows_given": findings.n_given,
        "n_features": findings.n_features,
        "tolerance": findings.tolerance,
        "worked_case": {"points": points.tolist(), "runs": [_run(run, with_path=True) for run in on_worked]},
        "runs": [_run(run, with_path=False) for run in findings.runs],
        "nested": {metric: [_nested(one) for one in nested] for metric, nested in findings.nested.items()},
        "exact_deviations": {name: str(part) for name, part in findings.exact._asdict().items()},
        "outliers": [shift._asdict() for shift in findings.shifts],
    }
    title = f"k-means of {findings.what}, {findings.dtype}, {findings.arithmetic} arithmetic"
    return Report("kmeans", title, HEADER, rows, claims(findings), data)


def claims(findings: Findings) -> list[Claim]:
    """Return what mathematics says, and, of outliers, what it says of these ones."""
    return [
        *(_falls(findings, metric) for metric in METRICS),
        _stops(findings),
        *(_nests(findings, metric) for metric in METRICS),
        _adds_up(findings),
        _adds_up_exactly(findings.exact),
        _resists(findings),
    ]


def _falls(findings: Findings, metric: str) -> Claim:
    runs = [run for run in (*findings.worked[1], *findings.runs) if run.metric == metric]
    steps = [(after - before) / before for run in runs for before, after in pairwise(run.objectives) if before > 0.0]
    worst = max(steps, default=0.0)
    found = f"{len(steps)} half-steps, {_rise(worst)}, tolerance {findings.tolerance:.1e}"
    return Claim(f"{metric}: neither assigning nor updating raises J", worst <= findings.tolerance, found)


def _stops(findings: Findings) -> Claim:
    fits = [fit for nested in findings.nested.values() for fit in nested]
    runs = [*findings.worked[1], *findings.runs]
    most = max(max(fit.n_iter for fit in fits), *(len(run.path) - 1 for run in runs))
    ends = all([fit.is_over for fit in fits] + [run.is_over for run in runs]) and most < MAX_ITER
    found = f"{len(fits) + len(runs)} runs, at most {most} iterations; one more changes no cluster"
    return Claim("it stops after finitely many steps", ends, found if ends else f"not within {MAX_ITER} iterations")


def _nests(findings: Findings, metric: str) -> Claim:
    nested = findings.nested[metric]
    steps = [(more.objective - less.objective) / nested[0].objective for less, more in pairwise(nested)]
    worst = max(steps, default=0.0)
    found = f"k = 1 … {len(nested)}, {_rise(worst)}, tolerance {findings.tolerance:.1e}"
    return Claim(f"{metric}: J does not grow with k, from nested starts", worst <= findings.tolerance, found)


def _adds_up(findings: Findings) -> Claim:
    parts = [fit.deviations for nested in findings.nested.values() for fit in nested]
    worst = max(float(abs(total - within - between) / total) for total, within, between in parts)
    found = f"{len(parts)} clusterings, relative difference at most {worst:.1e}, tolerance {findings.tolerance:.1e}"
    return Claim("the deviation is that within clusters + that between them", worst <= findings.tolerance, found)


def _adds_up_exactly(parts: Deviations) -> Claim:
    difference = parts.total - parts.within - parts.between
    if parts.total == 0:
        return Claim("in exact arithmetic it is so exactly", True, "rounded to its bits, all rows are the same")
    found = f"{float(parts.total):.6g} = {float(parts.within):.6g} + {float(parts.between):.6g} as fractions"
    return Claim(
        "in exact arithmetic it is so exactly",
        bool(difference == 0),
        found if difference == 0 else f"differs by {float(difference):.1e}",
    )


def _resists(findings: Findings) -> Claim:
    means, medians = (
        np.asarray([shift.shift for shift in findings.shifts if shift.metric == metric]) for metric in METRICS
    )
    share = float((medians / means).max())
    found = f"{len(means)} cases on the worked rows, by at most {share:.1%} of what l2's do"
    return Claim("l1's centres move less than l2's when outliers are added", share < 1.0, found)


def _rise(worst: float) -> str:
    return f"raised by at most {worst:.1e} of it" if worst > 0.0 else "raised by none"


def _row(squared: Nested, absolute: Nested) -> tuple[str, ...]:
    parts = squared.deviations
    return (
        f"{squared.k}",
        f"{squared.objective:.6g}",
        *(f"{float(part):.6g}" for part in (parts.within, parts.between, parts.total)),
        f"{squared.n_iter}",
        f"{absolute.objective:.6g}",
        f"{absolute.n_iter}",
    )


def _run(run: Run, *, with_path: bool) -> dict[str, Any]:
    centers = {"centers": run.path.tolist()} if with_path else {}
    return {"metric": run.metric, "objectives": run.objectives, "is_over": run.is_over, **centers}


def _nested(fit: Nested) -> dict[str, Any]:
    parts = {name: float(part) for name, part in fit.deviations._asdict().items()}
    return {"clusters": fit.k, "objective": fit.objective, "n_iter": int(fit.n_iter), "is_over": fit.is_over, **parts}
