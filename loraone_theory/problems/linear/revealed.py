"""A Gaussian matrix that is drawn along the directions it is asked for, exactly in law.

Of Z̃ (h × k, i.i.d. N(0, v)) a run sees Z̃M and MᵀZ̃ for thin M only. With orthonormal P and Q along
all that has been asked, the part (I − PPᵀ)Z̃(I − QQᵀ) is still free: given its norm it is uniform
on a sphere, so one more column or row of it has a squared norm of a Beta share of the rest and a
uniform direction.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from loraone_theory.core.linalg import eps
from loraone_theory.core.randomness import generator
from loraone_theory.problems.base import REVEALED

# A direction is new where its part off those before exceeds this many eps of its norm.
NEW = 256


@dataclass
class _Side:
    """What has been revealed along directions of one side, for n instances.

    Args:
        directions: (n, width, p), orthonormal columns or zero ones.
        answers: (n, other width, p), the matrix times them.
        free: (n,), dimensions of this side that are not taken.
    """

    directions: Tensor
    answers: Tensor
    free: Tensor

    @classmethod
    def none(cls, n: int, width: int, other: int, inside: int, like: Tensor) -> _Side:
        """Before the first question; of `width` only the first `inside` coordinates exist."""
        free = torch.full((n,), inside, dtype=torch.int64)
        return cls(like.new_zeros(n, width, 0), like.new_zeros(n, other, 0), free)

    def off(self, v: Tensor) -> Tensor:
        """v (n, width) less its part along the directions, taken off twice."""
        for _ in range(2):
            v = v - (self.directions @ (self.directions.mT @ v[..., None]))[..., 0]
        return v

    def append(self, direction: Tensor, answer: Tensor, new: Tensor) -> None:
        self.directions = torch.cat([self.directions, direction[..., None]], dim=-1)
        self.answers = torch.cat([self.answers, answer[..., None]], dim=-1)
        self.free = self.free - new.cpu().long()


@dataclass
class Revealed:
    """Z̃ (n, d, k), zero below row h, as far as it has been asked for.

    Args:
        seeds: one for each instance.
        height: h.
        total: ‖Z̃‖² (n,).
        rest: that of what is still free.
        left: along directions of R^d.
        right: along directions of R^k.
        core: PᵀZ̃Q (n, p, q).
        most: directions of a side that may be asked for.
    """

    seeds: tuple[int, ...]
    height: int
    total: Tensor
    rest: Tensor = field(metadata=REVEALED)
    left: _Side = field(metadata=REVEALED)
    right: _Side = field(metadata=REVEALED)
    core: Tensor = field(metadata=REVEALED)
    most: int = field(metadata=REVEALED)

    @classmethod
    def draw(
        cls, seeds: Sequence[int], shape: tuple[int, int, int], variance: float, most: int,
        like: Tensor,
    ) -> Revealed:  # fmt: skip
        """Nothing but its norm.

        Args:
            seeds: one for each instance.
            shape: (d, k, h).
            variance: v of the entries.
            most: directions of a side that may be asked for.
            like: carries dtype and device.
        """
        d, k, h = shape
        drawn = [variance * generator(s, "noise norm").chisquare(h * k) for s in seeds]
        total = torch.tensor(drawn, dtype=torch.float64).to(like)
        left = _Side.none(len(drawn), d, k, h, like)
        right = _Side.none(len(drawn), k, d, k, like)
        core = like.new_zeros(len(drawn), 0, 0)
        return cls(tuple(seeds), h, total, total.clone(), left, right, core, most)

    def times(self, M: Tensor) -> Tensor:
        """Z̃M (n, d, c) for M (n, k, c)."""
        self._ask(self.right, self.left, M, "right")
        return self.right.answers @ (self.right.directions.mT @ M)

    def transposed_times(self, M: Tensor) -> Tensor:
        """Z̃ᵀM (n, k, c) for M (n, d, c)."""
        self._ask(self.left, self.right, M, "left")
        return self.left.answers @ (self.left.directions.mT @ M)

    def _ask(self, side: _Side, other: _Side, M: Tensor, name: str) -> None:
        for column in M.unbind(-1):
            off = side.off(column)
            length = off.norm(dim=-1)
            new = length > NEW * eps(M) * column.norm(dim=-1)
            if bool(new.any()):
                self._reveal(side, other, torch.where(new[:, None], off / length[:, None], 0), name)

    def _reveal(self, side: _Side, other: _Side, q: Tensor, name: str) -> None:
        count = side.directions.shape[-1]
        if count >= self.most:
            raise ValueError(
                f"this noise was drawn for {self.most} directions of a side, and one more is asked "
                "for; draw it with a larger steps or rank"
            )
        new, width = q.abs().amax(-1) > 0, other.directions.shape[-2]
        # 1. What is known: Z̃q = P(PᵀZ̃)q and a part off P.
        known = (other.directions @ (other.answers.mT @ q[..., None]))[..., 0]
        # 2. That part: a share of the free norm, in a direction off P.
        share, g = self._drawn(f"{name}/{count}", side.free, other.free, width, q)
        if name == "right":
            g[:, self.height :] = 0
        u = other.off(g)
        size = u.norm(dim=-1)
        length = (torch.where(new, share, 0) * self.rest).sqrt()
        fresh = torch.where(size > 0, length / torch.where(size > 0, size, 1), 0)[:, None] * u
        self.rest = self.rest - length**2
        side.append(q, torch.where(new[:, None], known + fresh, 0), new)
        at_core = other.directions.mT @ side.answers[..., -1:]
        if name == "right":
            self.core = torch.cat([self.core, at_core], dim=-1)
        else:
            self.core = torch.cat([self.core, at_core.mT], dim=-2)

    def _drawn(
        self, stream: str, free: Tensor, across: Tensor, width: int, like: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The share of the free norm that one more direction takes (n,), and Gaussians (n, width).

        Of free·across dimensions it takes `across`.
        """
        shares, directions = [], []
        for seed, a, b in zip(self.seeds, free.tolist(), across.tolist(), strict=True):
            rng = generator(seed, f"noise {stream}")
            directions.append(rng.standard_normal(width))
            more = (a - 1) * b
            shares.append(rng.beta(b / 2, more / 2) if b and more > 0 else float(b > 0))
        return tuple(torch.from_numpy(np.array(x)).to(like) for x in (shares, directions))  # type: ignore[return-value]
