"""One neural network, written once against the Python array API standard, run by every array library.

>>> import mlp_xp
>>> backend = mlp_xp.open_backend("numpy")
>>> data = mlp_xp.load("digits").split()
>>> settings = mlp_xp.Settings(hidden_layer_sizes=(64,), epochs=2)
>>> for epoch in mlp_xp.train(settings, data, backend):
...     print(epoch.summary())  # doctest: +ELLIPSIS
#summary:...
>>> epoch.model.predict(data.test.features).labels.shape
(360,)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlp_xp.backend import Backend as Backend
    from mlp_xp.backend import list_backends as list_backends
    from mlp_xp.backend import open_backend as open_backend
    from mlp_xp.comparison import compare as compare
    from mlp_xp.datasets import Dataset as Dataset
    from mlp_xp.datasets import Split as Split
    from mlp_xp.datasets import load as load
    from mlp_xp.errors import MLPXPError as MLPXPError
    from mlp_xp.model import Model as Model
    from mlp_xp.recorded import load_model as load_model
    from mlp_xp.replica_runs import record_replicas as record_replicas
    from mlp_xp.replicas import train_replicas as train_replicas
    from mlp_xp.resuming import resume as resume
    from mlp_xp.runs import record as record
    from mlp_xp.settings import PRESETS as PRESETS
    from mlp_xp.settings import Settings as Settings
    from mlp_xp.training import Epoch as Epoch
    from mlp_xp.training import train as train

__version__ = "0.1.0"

# Imported when first used (PEP 562), so that `mlp-xp --help` waits for no array library.
_MODULES = {
    "Backend": "backend",
    "Dataset": "datasets",
    "Epoch": "training",
    "MLPXPError": "errors",
    "Model": "model",
    "PRESETS": "settings",
    "Settings": "settings",
    "Split": "datasets",
    "compare": "comparison",
    "list_backends": "backend",
    "load": "datasets",
    "load_model": "recorded",
    "open_backend": "backend",
    "record": "runs",
    "record_replicas": "replica_runs",
    "resume": "resuming",
    "train": "training",
    "train_replicas": "replicas",
}
__all__ = ["__version__", *_MODULES]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
