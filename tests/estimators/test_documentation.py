"""That nothing which scikit-learn documents of its two estimators is without a test."""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest
import sklearn.neural_network

from documentation import HELD, sentences

METHODS = ("fit", "partial_fit", "predict", "predict_proba", "predict_log_proba", "score")
OF_OTHERS = "For some estimators"  # takes a kernel matrix: these two do not

for pattern in ("test_documented*.py", "test_composition.py", "test_estimator_errors.py", "test_additions.py"):
    for file in Path(__file__).parent.glob(pattern):
        importlib.import_module(file.stem)


@pytest.mark.parametrize("name", ["MLPClassifier", "MLPRegressor"])
def test_every_documented_sentence_is_held_by_a_test(name: str) -> None:
    kind = getattr(sklearn.neural_network, name)
    documented = list(sentences(kind, METHODS))
    attributes = {"loss_", "coefs_", "out_activation_"}  # of the first, of the middle, and the last
    methods = {method for method in METHODS if hasattr(kind, method)}
    assert {*kind().get_params(), *attributes, *methods, "Notes"} <= {about for about, _ in documented}
    without = [
        f"{about}: {sentence}"
        for about, sentence in documented
        if not sentence.startswith(OF_OTHERS)
        if not any(about == held and sentence.startswith(beginning) for held, beginning in HELD)
    ]
    assert without == []
