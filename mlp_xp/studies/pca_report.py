"""What `mlp_xp.studies.pca` found, as a table, as claims, and as JSON."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlp_xp.studies.pca import KINDS, WORKED, Axes, Findings, shown
from mlp_xp.studies.report import Claim, Report
from mlp_xp.studies.rounding import rounding

HEADER = ("axes", "share of variance", "reconstruction error", "variances left out", "best other subspace's error")
MOVED = {
    "translation": "translations leave W as it is",
    "scaling": "scalings leave W as it is",
    "rotation": "rotations M turn W into M W",
}
SHARES = 0.90, 0.95, 0.99


def shares(axes: Axes) -> Any:
    """Return the share of the variance that the first 1, 2, … axes have, shape (m,)."""
    return np.cumsum(axes.variances) / axes.variances.sum()


def axes_needed(axes: Axes, share: float) -> int:
    """Return how many axes have at least this share of the variance."""
    return min(int(np.searchsorted(shares(axes), share)) + 1, len(axes.variances))


def report(findings: Findings, backend: dict[str, Any]) -> Report:
    """Return the study's report."""
    axes = findings.axes
    share, rest = shares(axes), left_out(axes)
    rows = [
        (
            f"{k}",
            f"{share[k - 1]:.2%}",
            f"{findings.errors[k]:.6g}",
            f"{rest[k]:.6g}",
            f"{min(findings.rivals[k]):.6g}" if k in findings.rivals else "-",
        )
        for k in shown(len(axes.variances))
    ]
    data = {
        "backend": backend,
        "dtype": findings.dtype,
        "solver": findings.solver,
        "n_rows": findings.n_rows,
        "n_features": findings.n_features,
        "tolerance": findings.tolerance,
        "total_variance": findings.total_variance,
        "explained_variance": axes.variances.tolist(),
        "axes_needed": {f"{share:.0%}": axes_needed(axes, share) for share in SHARES},
        "reconstruction_errors": [{"axes": k, "error": error} for k, error in findings.errors.items()],
        "other_subspaces": [{"dimension": k, "errors": errors} for k, errors in findings.rivals.items()],
        "worked_case": [
            {"rows": kind, "points": points.tolist(), "components": fitted.components.tolist()}
            for kind, points, fitted in findings.worked
        ],
        "moved": [
            {"kind": moved.kind, "sines": moved.angles.tolist(), "bounds": _finite(moved.bounds)}
            for moved in findings.moved
        ],
    }
    title = (
        f"principal components of {findings.n_rows:,} rows of {findings.n_features} features: {findings.where}, "
        f"{findings.dtype}, solver {findings.solver}"
    )
    return Report("pca", title, HEADER, rows, claims(findings), data)


def left_out(axes: Axes) -> Any:
    """Return the sum of the variances along all but the first 0, 1, 2, … axes, shape (m + 1,)."""
    return np.append(np.cumsum(axes.variances[::-1])[::-1], 0.0)


def claims(findings: Findings) -> list[Claim]:
    """Return what mathematics says; the tolerances are what rounding may do to numbers of this size."""
    axes, epsilon, tolerance = findings.axes, findings.epsilon, findings.tolerance
    first = findings.worked[0][2].components[0]
    miss = float(np.abs(first - [0.0, 1.0]).max())
    product = axes.components @ axes.components.T
    skew = float(np.abs(product - np.eye(len(product))).max())
    limit, nearly = rounding(findings.n_features, epsilon), rounding(len(WORKED), epsilon)
    gap = abs(float(axes.variances.sum()) - findings.total_variance)
    rest = left_out(axes)
    gaps = [abs(error - float(rest[k])) for k, error in findings.errors.items()]
    leads = [min(errors) - findings.errors[k] for k, errors in findings.rivals.items()]
    n_rivals = sum(len(errors) for errors in findings.rivals.values())
    total = findings.total_variance
    return [
        Claim(
            "w1 of (-1, 1), (0, -2), (1, 1) is (0, 1)",
            miss <= nearly,
            f"({_plain(first[0])}, {_plain(first[1])}), tolerance {nearly:.1e}",
        ),
        Claim(
            "the axes have length 1 and are perpendicular",
            skew <= float(limit),
            f"W Wᵀ is the identity within {skew:.1e}, tolerance {limit:.1e}",
        ),
        *(_moved(findings, kind) for kind in KINDS),
        Claim(
            "the variances along the axes sum to the whole variance",
            gap <= tolerance,
            f"relative difference {gap / total:.1e}, tolerance {tolerance / total:.1e}",
        ),
        Claim(
            "the reconstruction's mean squared error is the sum of the variances left out",
            max(gaps) <= tolerance,
            f"within {max(gaps) / total:.1e} of the whole variance for {len(gaps)} numbers of axes from 1 to "
            f"{max(findings.errors)}, tolerance {tolerance / total:.1e}",
        ),
        Claim(
            "no other subspace of that dimension is nearer to the rows",
            all(lead >= -tolerance for lead in leads),
            f"{n_rivals} tried, the best of them worse by {min(leads) / total:.1e} of the whole variance"
            if leads
            else "there is no other one",
        ),
    ]


def _moved(findings: Findings, kind: str) -> Claim:
    """Return whether copies' axes are where they should be, as near as rounding and the variances' gaps let them."""
    moved = [one for one in findings.moved if one.kind == kind]
    sines, bounds = (np.concatenate([getattr(one, name) for one in moved]) for name in ("angles", "bounds"))
    is_told = bounds < 1.0  # else rounding alone may turn the space by anything
    if not is_told.any():
        return Claim(MOVED[kind], True, "no two variances are different enough to tell")
    share = float((sines[is_told] / bounds[is_told]).max())
    found = (
        f"{len(moved)} moves, {is_told.sum()} spaces of the first axes: turned by at most {sines[is_told].max():.1e} "
        f"rad, {share:.2g} of what rounding may do across the variances' gaps"
    )
    return Claim(MOVED[kind], share <= 1.0, found)


def _plain(number: float) -> str:
    return f"{number + 0.0:.3g}"


def _finite(bounds: Any) -> list[float | None]:
    return [float(bound) if np.isfinite(bound) else None for bound in bounds]
