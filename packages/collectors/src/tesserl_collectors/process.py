"""Settings of a process that computes: torch's threads and precision, and memory that it keeps."""

from __future__ import annotations

import ctypes

import torch

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of malloc.h
LARGEST_BLOCK = 32 * 2**20
"""Bytes from which on a block is asked of the system; glibc accepts no more."""
LARGEST_REST = 512 * 2**20
"""Bytes of free memory at the end of the heap that are kept."""


def prepare_process(num_threads: int, float32_matmul: str = "highest") -> None:
    """Set torch's threads and precision, and keep freed memory in this process.

    Args:
        num_threads: threads of torch's operations, at least 1.
        float32_matmul: precision of products of float32 matrices, ``"highest"`` or ``"high"``.
    """
    torch.set_num_threads(num_threads)
    torch.set_float32_matmul_precision(float32_matmul)
    keep_freed_memory()


def keep_freed_memory() -> bool:
    """Make glibc keep freed memory for the next tensors, instead of returning it to the operating system.

    By default glibc returns the end of its heap after each update on pictures and asks for it again, and the system
    clears it page by page: about a tenth of the time of the IMPALA network. At most ``LARGEST_REST`` bytes more are
    held. Does nothing with other C libraries.

    Returns:
        Whether the C library has these settings.
    """
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, or a system without one to ask
        return False
    return bool(set_option(M_MMAP_THRESHOLD, LARGEST_BLOCK)) and bool(set_option(M_TRIM_THRESHOLD, LARGEST_REST))
