"""CuPy as the array API standard has it, with a ``matmul`` that may be used while a step is captured."""

from __future__ import annotations

from functools import partial

import cupy
from array_api_compat.cupy import *  # noqa: F403 - the namespace that this one is but for one function

from mlp_xp_cupy_graph import product

matmul = partial(product, cupy.matmul)
