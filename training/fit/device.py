"""Where torch runs, and how it is set up to be quick and repeatable there."""

from __future__ import annotations

import ctypes
import os
import platform

import torch

from training.common.errors import ExpectedError

DEVICE_VARIABLE = "DEVICE"

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # malloc.h


class DeviceError(ExpectedError):
    """DEVICE names a device that this machine does not have."""


def pick_device() -> torch.device:
    """cuda, mps or cpu: the best there is, unless the environment variable DEVICE names one.

    Raises DeviceError when that one is not there.
    """
    wanted = os.environ.get(DEVICE_VARIABLE, "")
    if not wanted:
        return torch.device("cuda" if torch.cuda.is_available() else "mps" if _has_mps() else "cpu")
    try:
        device = torch.device(wanted)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise DeviceError(f"DEVICE={wanted} cannot be used here ({reason}); try DEVICE=cpu or unset it") from None
    return device


def _has_mps() -> bool:
    return torch.backends.mps.is_available()


def set_up(seed: int) -> torch.device:
    """Seed torch, ask for deterministic kernels, keep freed memory; returns the device."""
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    _keep_freed_memory()
    return pick_device()


def _keep_freed_memory() -> None:
    """Stop glibc from giving big blocks back to the system after each operation.

    Every layer's output is such a block, and getting it back page by page made a forward pass of eight pictures on
    the CPU up to ten times slower. Does nothing where the C library is not glibc.
    """
    if (libc := _glibc()) is None:
        return
    libc.mallopt(_M_MMAP_MAX, 0)
    libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    libc.mallopt(_M_TOP_PAD, 64 * 2**20)


def give_back_freed_memory() -> None:
    """Give back to the system what is free by now: a step of the work is over, and the next one needs other sizes.

    Does nothing where the C library is not glibc.
    """
    if libc := _glibc():
        libc.malloc_trim(0)


def _glibc() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.libc_ver()[0] == "glibc" else None
