"""What CUDA's errors mean, by its own words for them, which every library passes on."""

from __future__ import annotations

from mlp_xp.backend import Backend

MARKS = ("CUDA error", "CUDA_ERROR_", "cudaError", "CUBLAS_STATUS_")
"""How PyTorch, JAX, CuPy and cuBLAS introduce them."""
OUT_OF_MEMORY = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
LOST = (
    "CUDA-capable device(s) is/are busy or unavailable",
    "no CUDA-capable device is detected",
    "uncorrectable ECC error encountered",
    "uncorrectable NVLink error detected",
    "an illegal memory access was encountered",
    "the launch timed out and was terminated",
    "context is destroyed",
    "hardware stack error",
    "an illegal instruction was encountered",
    "misaligned address",
    "invalid program counter",
    "unspecified launch failure",
    "system not yet initialized",
    "unknown error",
)
"""After which a process can do nothing more with the device (cudaGetErrorString; CUDA Runtime API, cudaError_t).

Not among them: invalid arguments and the like, which are mistakes of a program's, and failed assertions in a kernel,
which are about an index.
"""


def meaning(backend: Backend, error: RuntimeError) -> Exception | None:
    """Return what `Backend.failure` does, of an error that CUDA may be the cause of."""
    text = str(error)
    if not any(mark in text for mark in MARKS):
        return None
    if any(words in text for words in OUT_OF_MEMORY):
        return MemoryError(text.strip().partition("\n")[0])
    return backend.lost(error) if any(words in text for words in LOST) else None
