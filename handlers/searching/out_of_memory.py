"""Telling out-of-memory errors on any device, and freeing cached memory."""

from __future__ import annotations

import gc

import torch

WORDS = (
    "out of memory",  # CUDA, HIP, XPU, MPS
    "not enough memory",  # the CPU's allocator
    "can't allocate memory",
    "std::bad_alloc",
    "cannot allocate memory",
    "failed to allocate",
    "alloc_failed",  # CUBLAS_STATUS_ALLOC_FAILED, CUDNN_STATUS_ALLOC_FAILED, CUSOLVER_STATUS_ALLOC_FAILED
    "cudnn_status_not_supported",  # what cuDNN says where its workspace does not fit
    "resource_exhausted",  # XLA
)


def is_out_of_memory(error: BaseException) -> bool:
    """True if the error, or one that led to it (as those that torch.compile wraps), says that memory ran out."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    if isinstance(error, RuntimeError | OSError) and any(words in str(error).lower() for words in WORDS):
        return True
    return error.__cause__ is not None and is_out_of_memory(error.__cause__)


def free_memory() -> None:
    """Collects what is unreachable, and gives the accelerator's cached memory back."""
    gc.collect()
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    if accelerator is not None:
        torch.get_device_module(accelerator).empty_cache()
