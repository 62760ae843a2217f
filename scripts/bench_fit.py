"""A whole `fit` of this project's classifier beside scikit-learn's: the same settings, draws and loss curve."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import sklearn
import sklearn.neural_network
from sklearn.exceptions import ConvergenceWarning

import mlp_xp.neural_network
from bench_report import Report, Request, Unit, summarize
from bench_rounds import Contender, Entry, enter, interleave
from mlp_xp.backend import list_backends, open_backend
from mlp_xp.datasets import Dataset

if TYPE_CHECKING:
    from numpy.typing import NDArray

SOLVERS: dict[str, dict[str, Any]] = {"adam": {}, "sgd": {"solver": "sgd", "learning_rate_init": 0.1}}
"""Besides these, scikit-learn's defaults: 100 hidden units, batches of 200, momentum 0.9."""
PEER = "scikit-learn"


def _contender(name: str, solver: str, max_iter: int, module: Any, X: Any, y: NDArray[Any], where: Any) -> Contender:
    def turn(_: int) -> float:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            classifier = module.MLPClassifier(**SOLVERS[solver], max_iter=max_iter, random_state=0, n_iter_no_change=99)
            classifier.fit(X, y)
        return float(classifier.loss_)

    role: Literal["peer", "project"] = "peer" if module is sklearn.neural_network else "project"
    return Contender(f"{name} {solver}", role, where["device"], turn, where, against=f"{PEER} {solver}")


def _entries(data: Dataset, dtype: str, max_iter: int) -> dict[str, Entry]:
    X = data.features.astype(dtype) * data.scale
    y = data.targets

    def project(backend_name: str, solver: str, _: None) -> Contender:
        backend = open_backend(backend_name)
        place = backend.asarray(X, dtype)
        return _contender(
            f"mlp_xp {backend_name}", solver, max_iter, mlp_xp.neural_network, place, y, backend.describe()
        )

    def peer(solver: str, _: None) -> Contender:
        where = {PEER: sklearn.__version__, "device": "cpu"}
        return _contender(PEER, solver, max_iter, sklearn.neural_network, X, y, where)

    makers: dict[str, Callable[[Any], Contender]] = {}
    for solver in SOLVERS:
        makers |= {f"{name} {solver}": partial(project, name, solver) for name in list_backends()}
        makers[f"{PEER} {solver}"] = partial(peer, solver)
    return {name: Entry(make) for name, make in makers.items()}


def fit(make: Callable[[], Dataset], max_iter: int, request: Request) -> Report:
    """Measure a fit of so many epochs; what JAX compiles is compiled in the first round, which is not counted."""
    data = make()
    entries = _entries(data, request.dtype, max_iter)
    asked = None if request.names is None else {PEER, *request.names}
    names = [name for name in entries if asked is None or name.partition(" ")[0] in asked]
    contenders, left_out = enter(names, entries, None)
    values, failed = interleave(contenders, request.count())
    title = (
        f"fit: {data.name}, {data.n_samples} rows of {data.n_features}, {max_iter} epochs, {request.dtype}, "
        "MLPClassifier's defaults, and sgd with learning_rate_init=0.1"
    )
    return Report(
        name=f"fit-{data.name}",
        title=title,
        results=summarize(contenders, values),
        left_out=left_out | failed,
        details={"max_iter": max_iter, "dtype": request.dtype},
        unit=Unit("s per fit"),
        reference=PEER,
    )
