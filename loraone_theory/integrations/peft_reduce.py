"""What becomes of gradients as they come: kept whole, turned into triplets, or sketched."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from loraone_theory.core import linalg
from loraone_theory.integrations import distributed
from loraone_theory.integrations.given import Given, Triplets, norm
from loraone_theory.integrations.peft_config import LoRAOneConfig


class Reducer(Protocol):
    """Takes the gradients of a backward pass, one by one."""

    def add(self, name: str, gradient: Tensor) -> None:
        """One more term of the sum, on its device, which nobody else will use."""

    def finish(self, names: list[str], shapes: Mapping[str, tuple[int, ...]], passes: int) -> dict:
        """The mean over passes and processes, by name, of those in `names`."""

    def names(self) -> set[str]:
        """Which have come."""


class Whole:
    """Sums in float32 on the host."""

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}

    def add(self, name: str, gradient: Tensor) -> None:
        """A first gradient in float32 on the host is taken over as it is."""
        fresh = gradient.to("cpu", torch.float32).contiguous()
        self.sums[name] = self.sums[name].add_(fresh) if name in self.sums else fresh

    def names(self) -> set[str]:
        """Which have come."""
        return set(self.sums)

    def finish(
        self, names: list[str], shapes: Mapping[str, tuple[int, ...]], passes: int
    ) -> dict[str, Given]:
        """Divided in place, so that no gradient is held twice."""
        for name in names:
            total = (
                self.sums[name]
                if name in self.sums
                else torch.zeros(shapes[name], dtype=torch.float32, device="cpu")
            )
            self.sums[name] = distributed.mean_(total if passes == 1 else total.div_(passes))
        return {name: self.sums[name] for name in names}


def triplets(gradient: Tensor, keep: int) -> Triplets:
    """The leading `keep` triplets of one gradient, or of each expert's, on the host in float32.

    One that is not finite has zero triplets and the norm that says so.
    """
    G = gradient.to(torch.float32)
    size = norm(G)
    G = _finite(G, size)
    rank = min(keep, *G.shape[-2:])
    options = LoRAOneConfig().options(rank, (G.shape[-2], G.shape[-1]))
    found = linalg.truncated_svd(G, rank, options)
    return Triplets(*(part.to("cpu", torch.float32).contiguous() for part in (*found, size)))


def _finite(M: Tensor, size: Tensor) -> Tensor:
    """M with zeros for the matrices whose norm is not finite, which LAPACK refuses."""
    finite = torch.isfinite(size)
    return M if bool(finite.all()) else torch.where(finite[..., None, None], M, 0.0)


class Leading:
    """Triplets as soon as a gradient is complete: exact for one backward pass.

    Args:
        keep: how many.
    """

    def __init__(self, keep: int) -> None:
        self.keep = keep
        self.found: dict[str, Triplets] = {}

    def add(self, name: str, gradient: Tensor) -> None:
        """Raises ValueError where a gradient comes in several parts, or again."""
        if name in self.found:
            raise ValueError(
                "triplets of parts of a gradient do not add up to those of the sum; got several "
                f"parts for {name}, from several backward passes or from re-entrant checkpointing "
                "of a module that is used more than once; take groups= (exact) or "
                "reduce='sketch'"
            )
        self.found[name] = triplets(gradient, self.keep)

    def names(self) -> set[str]:
        """Which have come."""
        return set(self.found)

    def finish(
        self, names: list[str], shapes: Mapping[str, tuple[int, ...]], passes: int
    ) -> dict[str, Given]:
        """As they are."""
        return {name: self.found[name] for name in names if name in self.found}


class _Sums(NamedTuple):
    """Y = ΣGΩ (..., rows, q) and Z = ΣΨG (..., 2q + 1, columns)."""

    Y: Tensor
    Z: Tensor


class Sketch:
    """Two linear sketches of each gradient, which add up over passes and processes.

    With Q an orthonormal basis of Y = GΩ and Z = ΨG, G ≈ Q(ΨQ)†Z. For Gaussian Ω (q columns) and
    Ψ (2q + 1 rows) the expected squared error is at most (1 + q/q)·min_ϱ (1 + ϱ/(q − ϱ − 1))·
    Σ_{i>ϱ} σ_i² over ϱ < q − 1: within a small factor of the best rank-ϱ approximation for ϱ well
    below q.

    Args:
        keep: how many triplets are kept in the end.
        seed: of Ω and Ψ, which modules of one shape share.

    Reference: Tropp, Yurtsever, Udell and Cevher, Practical sketching algorithms for low-rank
    matrix approximation (2017), Theorem 4.3.
    """

    def __init__(self, keep: int, seed: int) -> None:
        self.keep, self.seed = keep, seed
        self.width = max(32, 4 * keep)
        self.sums: dict[str, _Sums] = {}
        self._probes: dict[tuple[int, ...], tuple[Tensor, Tensor]] = {}

    def add(self, name: str, gradient: Tensor) -> None:
        """Two thin products on the gradient's device."""
        G = gradient.to(torch.float32)
        right, left = self._of_shape(G.shape[-2:], G.device)
        fresh = _Sums((G @ right).cpu(), (left @ G).cpu())
        held = self.sums.get(name)
        self.sums[name] = fresh if held is None else _Sums(held.Y.add_(fresh.Y), held.Z + fresh.Z)

    def names(self) -> set[str]:
        """Which have come."""
        return set(self.sums)

    def finish(
        self, names: list[str], shapes: Mapping[str, tuple[int, ...]], passes: int
    ) -> dict[str, Given]:
        """The leading triplets of Q(ΨQ)†Z; the norm is estimated by that of Z."""
        found: dict[str, Given] = {}
        for name in names:
            *batch, rows, columns = shapes[name]
            width = min(self.width, rows, columns)
            _, left = self._of_shape((rows, columns), torch.device("cpu"))
            empty = _Sums(
                left.new_zeros(*batch, rows, width), left.new_zeros(*batch, left.shape[0], columns)
            )
            sums = self.sums.pop(name, empty)
            Y, Z = (distributed.mean_(part.div_(passes)).double() for part in sums)
            size = torch.linalg.matrix_norm(Z)
            Y, Z = (_finite(part, size) for part in (Y, Z))
            Q = torch.linalg.qr(Y).Q
            core = torch.linalg.lstsq(left.double() @ Q, Z).solution
            U, S, V = linalg.truncated_svd(core, min(self.keep, width))
            parts = (Q @ U, S, V, size)
            found[name] = Triplets(*(part.float().contiguous() for part in parts))
        return found

    def _of_shape(self, shape: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor]:
        """Ω (columns, q) and Ψ (2q + 1, rows), of variance 1/(2q + 1) so that ‖ΨG‖ ≈ ‖G‖."""
        rows, columns = shape
        if (rows, columns) not in self._probes:
            g = torch.Generator("cpu").manual_seed(self.seed + 1_000_003 * rows + columns)
            q = min(self.width, rows, columns)
            here: dict[str, Any] = {"generator": g, "dtype": torch.float32, "device": "cpu"}
            right = torch.randn(columns, q, **here)
            left = torch.randn(2 * q + 1, rows, **here) / (2 * q + 1) ** 0.5
            self._probes[rows, columns] = (right, left)
        right, left = self._probes[rows, columns]
        return right.to(device), left.to(device)
