"""Functions that numba compiles: how, and where they may call each other.

A compiled function is kept beside its file and made anew when that file changes. One that it calls
is part of it, so compiled functions only call those of their own file.
"""

from __future__ import annotations

from loraone_theory.core.extras import extra

with extra("fast", "leave engine out"):
    import numba

# Sums may go in any order and products into sums; NaN and infinities stay what they are.
compiled = numba.njit(
    nogil=True, cache=True, error_model="numpy", fastmath={"reassoc", "contract", "nsz"}
)
