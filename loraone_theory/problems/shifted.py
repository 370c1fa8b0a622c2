"""What a problem with a shift Δ and an offset says of its sizes and its target."""

from __future__ import annotations

from torch import Tensor

from loraone_theory.core.factors import Factors, concatenate


class Shifted:
    """Sizes and target of a problem from its Δ and its offset.

    Args:
        shift: Δ as Factors, of inner dimension r*.
        offset: what was subtracted from W in the frozen part, if anything was.
    """

    shift: Factors
    offset: Factors | None

    @property
    def d(self) -> int:
        """Input width: the rows of Δ."""
        return self.shift.A.shape[-2]

    @property
    def k(self) -> int:
        """Output width: the columns of Δ."""
        return self.shift.B.shape[-1]

    @property
    def true_rank(self) -> int:
        """r*, the rank of Δ; 0 where Δ is not known."""
        return self.shift.rank

    @property
    def like(self) -> Tensor:
        """A tensor that carries the problem's dtype and device."""
        return self.shift.A

    @property
    def target(self) -> Factors:
        """T = Δ + offset, what AB has to equal."""
        return self.shift if self.offset is None else concatenate(self.shift, self.offset)

    def offset_with(self, offset: Factors) -> Factors:
        """The whole offset where another one is subtracted."""
        return offset if self.offset is None else concatenate(self.offset, offset)
