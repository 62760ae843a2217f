"""Every warning names the line that called the estimator, whichever solver and method it comes from."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy.optimize import OptimizeResult
from sklearn.datasets import load_iris
from sklearn.exceptions import ConvergenceWarning, DataConversionWarning

from mlp_xp.backend import Backend
from mlp_xp.neural_network import MLPClassifier, MLPRegressor

X, Y = load_iris(return_X_y=True)
FEW: dict[str, Any] = {"hidden_layer_sizes": (5,), "random_state": 0}


def warned(call: Callable[[], Any]) -> tuple[type[Warning], str]:
    """Return kind and text of the one warning of a call, which must name this file."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    assert [warning.filename for warning in caught] == [__file__]
    return caught[0].category, str(caught[0].message)


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("kind", [MLPClassifier, MLPRegressor])
@pytest.mark.parametrize(
    ("settings", "y", "category", "text"),
    [
        ({"max_iter": 2}, Y, ConvergenceWarning, "Maximum iterations (2) reached"),
        ({"max_iter": 2, "solver": "lbfgs"}, Y, ConvergenceWarning, "lbfgs failed to converge after 2 iteration(s)"),
        ({"callbacks": [interrupt]}, Y, UserWarning, "Training interrupted by user"),
        ({"batch_size": 1000, "tol": 9.0}, Y, UserWarning, "larger than sample size"),
        ({"tol": 9.0}, Y[:, None], DataConversionWarning, "A column-vector y was passed"),
    ],
)
def test_warnings_of_fit_name_its_caller(
    backend: Backend, kind: Any, settings: dict[str, Any], y: Any, category: type[Warning], text: str
) -> None:
    place = backend.asarray(X, "float32")
    found, said = warned(lambda: kind(**FEW, **{"max_iter": 50} | settings).fit(place, y))
    assert found is category
    assert text in said


@pytest.mark.parametrize(("kind", "more"), [(MLPClassifier, {"classes": [0, 1, 2]}), (MLPRegressor, {})])
@pytest.mark.parametrize(
    ("settings", "y", "category", "text"),
    [
        ({"callbacks": [interrupt]}, Y, UserWarning, "Training interrupted by user"),
        ({"batch_size": 1000}, Y, UserWarning, "larger than sample size"),
        ({}, Y[:, None], DataConversionWarning, "A column-vector y was passed"),
    ],
)
def test_warnings_of_partial_fit_name_its_caller(
    kind: Any, more: dict[str, Any], settings: dict[str, Any], y: Any, category: type[Warning], text: str
) -> None:
    found, said = warned(lambda: kind(**FEW, **settings).partial_fit(X, y, **more))
    assert found is category
    assert text in said


def test_lbfgs_warns_of_every_end_but_convergence_and_a_callbacks(monkeypatch: pytest.MonkeyPatch) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        MLPClassifier(**FEW, solver="lbfgs", tol=10.0).fit(X, Y)
        MLPClassifier(**FEW, solver="lbfgs", callbacks=[lambda estimator: estimator.n_iter_ == 2]).fit(X, Y)

    def end_by_its_line_search(_: object, start: Any, **_more: Any) -> OptimizeResult:
        return OptimizeResult(x=start, fun=1.0, nit=7, status=2, success=False, message="ABNORMAL: ")

    monkeypatch.setattr("mlp_xp.estimators.lbfgs.minimize", end_by_its_line_search)
    category, text = warned(lambda: MLPClassifier(**FEW, solver="lbfgs").fit(X, Y))
    assert category is ConvergenceWarning
    assert text.startswith("lbfgs failed to converge after 7 iteration(s) (status=2):\nABNORMAL: ")
    assert "max_iter" not in text  # more iterations would not help
    assert text.endswith("Scale the data.")


@pytest.mark.parametrize("limit", ["max_iter", "max_fun"])
def test_lbfgs_says_which_limits_to_increase(limit: str) -> None:
    settings: dict[str, Any] = {limit: 3}
    _, text = warned(lambda: MLPRegressor(**FEW, solver="lbfgs", **settings).fit(X, np.sin(9 * X[:, 0])))
    assert "(status=1)" in text
    assert "Increase the number of iterations (max_iter) or of evaluations (max_fun), or scale the data." in text
