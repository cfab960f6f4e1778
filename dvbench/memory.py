"""Memory: kept when freed, pinned for the way to a GPU, and met with half as many images where it runs out."""

from __future__ import annotations

import ctypes
import gc
import platform

import torch

from dvbench.errors import WorkError

# What torch's allocator on the CPU, oneDNN's (which cannot tell why) and that on MPS say; CUDA has its own exception.
COMPLAINTS = (
    *("DefaultCPUAllocator: can't allocate memory", "DefaultCPUAllocator: not enough memory"),
    *("could not create a primitive", "out of memory"),
)

GLIBC = platform.libc_ver()[0] == "glibc"

# Names of mallopt(3) in glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def keep_freed() -> None:
    """Let the C library keep what is freed, where it can be told so, instead of handing it back to the system.

    Tensors of a few megabytes come and go at every step: asking the system for them again costs a page fault every
    4 KiB.
    """
    if GLIBC:
        libc = ctypes.CDLL(None)
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def sent(values: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Send a tensor to ``device`` without waiting until it is there."""
    if device.type == "cuda":
        values = values.pin_memory()  # from other memory CUDA copies while the program waits
    return values.to(device, non_blocking=True)


def ran_out(error: BaseException) -> bool:
    """Tell whether an error says that the device has too little memory."""
    known = isinstance(error, MemoryError | torch.OutOfMemoryError)
    return known or (isinstance(error, RuntimeError) and any(said in str(error) for said in COMPLAINTS))


def halved(images: int, error: BaseException) -> int:
    """Return half of the ``images`` that were too many for the device.

    Raises ``error`` itself where it is about something else, and WorkError where one image is too many.
    """
    if not ran_out(error):
        raise error
    if images == 1:
        raise WorkError(
            "the device has too little memory for this network with one image at a time: "
            "choose a smaller network, such as --set backbone.width=16, or another --device"
        ) from error
    return images // 2


def release(device: torch.device) -> None:
    """Hand back the memory that nothing needs and that the allocators of the device and of the processor keep."""
    gc.collect()  # what holds itself, such as what a GPU recorded of training
    if GLIBC:
        ctypes.CDLL(None).malloc_trim(0)
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
