"""The PEFT route against PEFT's own; needs the extra `peft`."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

from loraone_theory.bench.base import Row, Setting, benchmark
from loraone_theory.core.extras import extra


@benchmark("peft")
def peft(setting: Setting) -> Iterator[Row]:
    """Estimation, initialisation and a step on a transformer, against PEFT and torch."""
    # Loaded on demand: the extra is heavy, and may be absent.
    with extra("peft"):
        return importlib.import_module("loraone_theory.integrations.peft_bench").rows(setting)
