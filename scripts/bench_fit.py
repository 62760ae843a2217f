"""A whole `fit` of this project's estimators beside scikit-learn's: the same settings, rows and draws."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

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


class Case(NamedTuple):
    """What is fitted, and what is looked at then: the turn's result, for which the device must be done."""

    ours: Callable[[], Any]
    theirs: Callable[[], Any]
    result: Callable[[Any], float]


def _contender(name: str, case_name: str, make: Callable[[], Any], case: Case, X: Any, y: Any, where: Any) -> Contender:
    def turn(_: int) -> float:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            return case.result(make().fit(X, y))

    role: Literal["peer", "project"] = "peer" if make is case.theirs else "project"
    return Contender(f"{name} {case_name}", role, where["device"], turn, where, against=f"{PEER} {case_name}")


def entries(cases: Mapping[str, Case], X: NDArray[Any], y: NDArray[Any] | None) -> dict[str, Entry]:
    """Return, of every case, scikit-learn's estimator and ours on every backend."""

    def project(backend_name: str, case_name: str, _: None) -> Contender:
        backend, case = open_backend(backend_name), cases[case_name]
        place = backend.asarray(X, X.dtype.name)
        return _contender(f"mlp_xp {backend_name}", case_name, case.ours, case, place, y, backend.describe())

    def peer(case_name: str, _: None) -> Contender:
        where, case = {PEER: sklearn.__version__, "device": "cpu"}, cases[case_name]
        return _contender(PEER, case_name, case.theirs, case, X, y, where)

    makers: dict[str, Callable[[Any], Contender]] = {}
    for case_name in cases:
        makers |= {f"{name} {case_name}": partial(project, name, case_name) for name in list_backends()}
        makers[f"{PEER} {case_name}"] = partial(peer, case_name)
    return {name: Entry(make) for name, make in makers.items()}


def beside_scikit_learn(
    name: str,
    title: str,
    cases: Mapping[str, Case],
    X: NDArray[Any],
    y: NDArray[Any] | None,
    request: Request,
    details: dict[str, Any],
) -> Report:
    """Measure fits; what JAX compiles is compiled in the first round, which is not counted."""
    made = entries(cases, X, y)
    asked = None if request.names is None else {PEER, *request.names}
    names = [entry for entry in made if asked is None or entry.partition(" ")[0] in asked]
    contenders, left_out = enter(names, made, None)
    values, failed = interleave(contenders, request.count())
    return Report(
        name=name,
        title=title,
        results=summarize(contenders, values),
        left_out=left_out | failed,
        details={**details, "dtype": request.dtype},
        unit=Unit("s per fit"),
        reference=PEER,
    )


def fit(make: Callable[[], Dataset], max_iter: int, request: Request) -> Report:
    """Measure a classifier's fit of so many epochs."""
    data = make()

    def classifier(module: Any, solver: str) -> Any:
        return module.MLPClassifier(**SOLVERS[solver], max_iter=max_iter, random_state=0, n_iter_no_change=99)

    cases = {
        solver: Case(
            partial(classifier, mlp_xp.neural_network, solver),
            partial(classifier, sklearn.neural_network, solver),
            lambda fitted: float(fitted.loss_),
        )
        for solver in SOLVERS
    }
    title = (
        f"fit: {data.name}, {data.n_samples} rows of {data.n_features}, {max_iter} epochs, {request.dtype}, "
        "MLPClassifier's defaults, and sgd with learning_rate_init=0.1"
    )
    X = data.features.astype(request.dtype) * data.scale
    return beside_scikit_learn(f"fit-{data.name}", title, cases, X, data.targets, request, {"max_iter": max_iter})
