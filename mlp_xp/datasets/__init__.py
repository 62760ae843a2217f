"""Data sets: embedded digits, MNIST, and CSV, NPY, NPZ and IDX files, all through `load`."""

from mlp_xp.datasets.dataset import Dataset, Split
from mlp_xp.datasets.loading import load, load_features

__all__ = ["Dataset", "Split", "load", "load_features"]
