"""Gradients on disk, with what they are the gradients of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from loraone_theory import storage
from loraone_theory.integrations.given import Given, Triplets
from loraone_theory.integrations.peft_find import is_meta

VERSION = "3"
# Between the name of a module and that of a part of its triplets.
SEPARATOR = "//"


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


def save(path: Path, gradients: Mapping[str, Given], made_from: Mapping[str, str]) -> None:
    """Write the file whole or not at all; triplets part by part."""
    tensors: dict[str, Tensor] = {}
    for name, gradient in gradients.items():
        if isinstance(gradient, Triplets):
            tensors |= {f"{name}{SEPARATOR}{key}": part for key, part in gradient._asdict().items()}
        else:
            tensors[name] = gradient
    with storage.whole_file(path) as temporary:
        save_file(tensors, temporary, metadata={"version": VERSION, **made_from})


class SavedGradients(Mapping[str, Given]):
    """The gradients in a file, each read when it is asked for.

    Args:
        path: what `get_lora_one_gradients` wrote as its cache_file.

    Raises:
        DamagedFile: another kind of file.
        ValueError: gradients that are not float32.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = storage.as_path(path)
        with _opened(self.path) as file:
            self.made_from: dict[str, str] = dict(file.metadata() or {})
            keys = list(file.keys())
            wrong = [key for key in keys if file.get_slice(key).get_dtype() != "F32"]
        if wrong:
            raise ValueError(
                f"{path} must hold float32 gradients; got another dtype for "
                f"{', '.join(wrong[:3])}; delete it to estimate anew"
            )
        self._names = {key: key.partition(SEPARATOR)[1] != "" for key in keys}
        self._names = {key.partition(SEPARATOR)[0]: cut for key, cut in self._names.items()}

    @property
    def looked_for(self) -> set[str]:
        """The targets of the call that made it, with those that got no gradient."""
        return set(json.loads(self.made_from["targets"]))

    def __getitem__(self, name: str) -> Given:
        reduced = self._names[name]
        with _opened(self.path) as file:
            if not reduced:
                return file.get_tensor(name)
            return Triplets(*(file.get_tensor(f"{name}{SEPARATOR}{k}") for k in Triplets._fields))

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    kind = "a safetensors file of gradients"
    try:
        with storage.reading(path, kind), safe_open(path, framework="pt") as file:
            yield file
    except SafetensorError as error:
        raise storage.damaged(path, kind, error) from error


def load(path: Path, expected: Mapping[str, str]) -> SavedGradients:
    """The gradients in a file that was made from what is expected.

    Raises:
        DamagedFile: the file is damaged or another kind of file.
        ValueError: it was made from something else, which is named.
    """
    found = SavedGradients(path)
    wanted = {"version": VERSION, **expected}
    other = [
        f"{key} is {found.made_from.get(key, 'not stated')!r} in it and {value!r} now"
        for key, value in wanted.items()
        if found.made_from.get(key) != value
    ]
    if other:
        raise ValueError(
            f"cache_file {path} must hold the gradients of this call; got others: "
            f"{'; '.join(other)}; delete it to estimate anew, or name another file"
        )
    return found
