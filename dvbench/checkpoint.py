"""Tensors and numbers in one safetensors file, written whole, with a digest that tells damage from weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from dvbench.errors import UsageError
from dvbench.files import write_whole


def digest(tensors: Mapping[str, torch.Tensor], state: str) -> str:
    """Return the SHA-256 of names, shapes and bytes in order of name, and of ``state``."""
    sha = hashlib.sha256(state.encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


def write(path: Path, tensors: Mapping[str, torch.Tensor], state: Mapping[str, Any]) -> None:
    """Write ``tensors`` and the JSON-able ``state`` to ``path``, whole or not at all."""
    text = json.dumps(state, sort_keys=True)
    # Copies, since a network's tied weights share memory, which the format refuses.
    held = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for name, tensor in tensors.items()
    }
    content = save(held, metadata={"state": text, "sha256": digest(held, text)})
    write_whole(path, lambda file: file.write(content))


def read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Return what ``write`` was given, on the CPU. Raises UsageError for a damaged file."""
    damaged = UsageError(
        f"the checkpoint {path} is damaged: delete it to go on without it, or give --fresh to start a new run"
    )
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    except (SafetensorError, OSError, ValueError) as error:
        raise damaged from error
    if metadata.get("sha256") != digest(tensors, metadata.get("state", "")):
        raise damaged
    state: dict[str, Any] = json.loads(metadata["state"])
    return tensors, state


def under(prefix: str, tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Return the tensors whose names begin with ``prefix`` and a dot, without it."""
    return {name.removeprefix(f"{prefix}."): value for name, value in tensors.items() if name.startswith(f"{prefix}.")}
