"""Settings of a process that runs torch: threads, precision and freed memory."""

from __future__ import annotations

import ctypes

import torch

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # from malloc.h
LARGEST_BLOCK = 32 * 2**20
"""Block size in bytes from which glibc allocates with mmap; the largest value that glibc accepts."""
LARGEST_REST = 512 * 2**20
"""Free bytes at the end of the heap that glibc keeps."""


def prepare_process(num_threads: int, float32_matmul: str = "highest") -> None:
    """Set torch's threads and precision, and make this process keep freed memory.

    Args:
        num_threads: threads of torch's operations, at least 1.
        float32_matmul: precision of products of float32 matrices, ``"highest"`` or ``"high"``.
    """
    torch.set_num_threads(num_threads)
    torch.set_float32_matmul_precision(float32_matmul)
    keep_freed_memory()


def keep_freed_memory() -> bool:
    """Make glibc keep freed memory for later tensors instead of returning it to the operating system.

    By default glibc returns the end of its heap after each update on images and requests it again, and the system
    clears each page: about a tenth of the time of the IMPALA network. The process holds at most ``LARGEST_REST`` bytes
    more. With other C libraries this function does nothing.

    Returns:
        Whether the C library supports these settings.
    """
    try:
        set_option = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, or none that can be loaded
        return False
    return bool(set_option(M_MMAP_THRESHOLD, LARGEST_BLOCK)) and bool(set_option(M_TRIM_THRESHOLD, LARGEST_REST))
