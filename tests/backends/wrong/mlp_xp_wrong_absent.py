"""A backend whose library is not installed."""

from no_such_library import array  # type: ignore[import-not-found]

from mlp_xp.backend import Backend


class AbsentBackend(Backend):
    """Never defined."""

    xp = array
