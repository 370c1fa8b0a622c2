"""Gradients on disk, with what they are the gradients of."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from loraone_theory import storage
from loraone_theory.integrations.peft_find import is_meta

VERSION = "2"


def fingerprint(model: nn.Module) -> str:
    """SHA-256 of the names, shapes, dtypes and values of all parameters and buffers."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict(keep_vars=True).items()):
        if isinstance(tensor, Tensor):
            name = name.replace("_orig_mod.", "")  # compiled or not, the weights are the same
            digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype};".encode())
            if is_meta(tensor):
                continue
            plain = tensor.detach().cpu().contiguous().flatten()
            digest.update(plain.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save(path: Path, gradients: Mapping[str, Tensor], made_from: Mapping[str, str]) -> None:
    """Write the file whole or not at all."""
    with storage.whole_file(path) as temporary:
        save_file(dict(gradients), temporary, metadata={"version": VERSION, **made_from})


def load(path: Path, expected: Mapping[str, str]) -> dict[str, Tensor]:
    """All tensors of a file that was made from what is expected.

    Raises:
        DamagedFile: the file is damaged or another kind of file.
        ValueError: it was made from something else, which is named.
    """
    kind = "a safetensors file of gradients"
    try:
        with storage.reading(path, kind), safe_open(path, framework="pt") as file:
            made_from = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise storage.damaged(path, kind, error) from error
    wanted = {"version": VERSION, **expected}
    other = [
        f"{key} is {made_from.get(key, 'not stated')!r} in it and {value!r} now"
        for key, value in wanted.items()
        if made_from.get(key) != value
    ]
    if other:
        raise ValueError(
            f"cache_file {path} must hold the gradients of this call; got others: "
            f"{'; '.join(other)}; delete it to estimate anew, or name another file"
        )
    wrong = [f"{name} of {t.dtype}" for name, t in tensors.items() if t.dtype != torch.float32]
    if wrong:
        raise ValueError(
            f"cache_file {path} must hold float32 gradients; got {', '.join(wrong[:3])}; "
            "delete it to estimate anew"
        )
    return tensors
