"""The machine: which device and precision a run uses, and what the record says of where it ran."""

from __future__ import annotations

import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from importlib import metadata
from itertools import product
from pathlib import Path
from typing import Any

import torch

from dvbench.errors import UsageError
from dvbench.memory import keep_freed
from dvbench.offers import source_digest

# What tells of runs but decides nothing about them: a change there leaves their records comparable.
APART = (
    *("cli", "report", "testing"),
    *("dryrun.py", "entry.py", "known.py", "listing.py", "pytest_plugin.py", "scaffold.py"),
    *("migrations.py", "record.py", "schema.py"),
)
# Products in bf16 must be this many times as fast: a network gains and loses a little less by bf16 than they do.
BF16_GAIN, BF16_ROUNDS = 1.2, 9
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def choose_device(name: str) -> torch.device:
    """Return the device called ``name``; "auto" is CUDA, else MPS, else the CPU."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(device for device, found in there.items() if found)
    if not there[name]:
        raise UsageError(f"there is no {name} device here: choose --device cpu or leave --device out")
    return torch.device(name)


def choose_precision(name: str, device: torch.device) -> str:
    """Return the precision called ``name``; "auto" is bf16 where the device computes in it natively, else fp32.

    Some processors have instructions for bf16 that are slower than those for fp32, so that a CPU is timed.
    """
    if name == "auto":
        native: dict[str, Callable[[], bool]] = {
            "cuda": lambda: torch.cuda.is_bf16_supported(including_emulation=False),
            "cpu": lambda: bf16_speed_up() >= BF16_GAIN,
            "mps": lambda: False,
        }
        return "bf16" if native[device.type]() else "fp32"
    if name == "fp16" and device.type != "cuda":
        raise UsageError(f"fp16 needs a CUDA device, and this run is on {device.type}: choose --precision bf16 or fp32")
    return name


@cache
def bf16_speed_up() -> float:
    """Return how many times as fast as fp32 the processor multiplies matrices in bf16; 0 where it cannot."""
    if not torch.cpu._is_avx512_bf16_supported():  # noqa: SLF001 - it has no public name
        return 0.0
    exact = torch.ones(512, 512)
    factors = {"fp32": exact, "bf16": exact.bfloat16()}
    seconds: dict[str, list[float]] = {name: [] for name in factors}
    # By turns, so that a slow moment of the machine meets both; the first product builds its kernel.
    for _, (name, factor) in product(range(BF16_ROUNDS), factors.items()):
        started = time.perf_counter()
        factor @ factor
        seconds[name].append(time.perf_counter() - started)
    return statistics.median(seconds["fp32"]) / statistics.median(seconds["bf16"])


def memory_order(device: torch.device) -> torch.memory_format:
    """Return the order in which a network that trains on ``device`` is fastest.

    Convolutions are faster channels last, but for those that training runs backward on a CPU without AVX-512.
    """
    if device.type == "cpu" and torch.backends.cpu.get_cpu_capability() != "AVX512":
        return torch.contiguous_format
    return torch.channels_last


def autocast(device: torch.device, precision: str) -> Callable[[], AbstractContextManager[Any]]:
    """Return a factory of the context in which a network runs in ``precision``.

    What a GPU has recorded must cast weights anew whenever it runs, and not have been given what was cast before.
    """
    if precision == "fp32":
        return nullcontext
    return lambda: torch.autocast(device.type, DTYPES[precision], cache_enabled=device.type != "cuda")


@contextmanager
def tf32(device: torch.device) -> Iterator[None]:
    """Let a CUDA device round the factors of fp32 products to TF32 here; the process itself stays exact."""
    if device.type != "cuda":
        yield
        return
    held = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(held)


def set_up(threads: int | None) -> None:
    """Let torch work as fast as it can, on the CPU with ``threads`` threads where given."""
    if threads is not None:
        torch.set_num_threads(threads)
    keep_freed()


def describe(
    device: torch.device, precision: str, plugins: Mapping[str, str], code: Mapping[str, str]
) -> dict[str, Any]:
    """Return the record's ``environment``; ``code`` {distribution: SHA-256 of the source} of plugins not dvbench's."""
    commit, dirty = git_state(Path(__file__).parents[1])
    return {
        "dvbench": plugins["dvbench"],
        "python": platform.python_version(),
        "torch": torch.__version__,
        "plugins": dict(plugins),
        "plugin_code": dict(code),
        "code": program_digest(),
        "git_commit": commit,
        "git_dirty": dirty,
        "device": device.type,
        "device_name": device_name(device),
        "threads": torch.get_num_threads(),
        "precision": precision,
        "platform": platform.platform(),
        "torchvision": metadata.version("torchvision"),
    }


def program_digest() -> str:
    """Return the SHA-256 of the part of dvbench's source that decides what a run does."""
    return source_digest("dvbench", without=APART)


def device_name(device: torch.device) -> str | None:
    """Return the model of the GPU or of the processor, None where the system does not say."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)


def git_state(checkout: Path) -> tuple[str | None, bool | None]:
    """Return the commit of the checkout that the program runs from and whether it was changed since; else None."""
    if not (checkout / ".git").exists():
        return None, None
    try:
        commit, changes = (
            subprocess.run(  # noqa: S603 - fixed words
                ["git", "-C", str(checkout), *words],  # noqa: S607 - git is wherever the user has it
                capture_output=True,
                text=True,
                check=True,
            ).stdout.strip()
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        )
    except (OSError, subprocess.CalledProcessError):
        return None, None
    return commit, bool(changes)
