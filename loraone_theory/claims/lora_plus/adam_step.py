"""With Adam the ratio of the rates is the ratio of what the entries move by."""

from __future__ import annotations

import torch

from loraone_theory.claims.base import Claim, Draws, Evidence, listed
from loraone_theory.claims.population import EPS, gaussian
from loraone_theory.claims.width import SMALLEST
from loraone_theory.methods.rules.adamw import adamw

D, K, RANK, RATE, RATIOS, NEARLY = 12, 9, 3, 1e-2, (4.0, 16.0), 0.99


def _moves(draws: Draws, *, share: float) -> Evidence:
    """|ΔA_ij| over η and |ΔB_ij| over λη in the first step, both ends of each."""
    found, allowed = [], []
    for block, ratio in enumerate(RATIOS):
        seeds = draws.seeds(block=block)
        A, B = gaussian(D, RANK, seeds, "A"), gaussian(RANK, K, seeds, "B")
        gradients = gaussian(D, RANK, seeds, "∇A"), gaussian(RANK, K, seeds, "∇B")
        rule = adamw(RATE, eps=SMALLEST, ratio=ratio)
        new, _ = rule.update((A, B), gradients, rule.init((A, B)))
        for before, after, rate in ((A, new[0], RATE), (B, new[1], share * ratio * RATE)):
            move = (after - before).abs().flatten(-2) / rate
            found += [move.amin(-1), move.amax(-1)]
            # Rounding of a sum of size |P| + η, and of the means' own.
            allowed += [(4 * EPS * (1 + (before.abs().amax((-2, -1)) + rate) / rate))] * 2
    return Evidence(torch.cat(found).numpy(), 1.0, tolerance=torch.cat(allowed).numpy())


CLAIMS = (
    Claim(
        id="lora-plus/adam",
        title="The first step of LoRA+ with AdamW",
        reference="Hayou, Ghosh, Yu, arXiv 2402.12354, abstract; Adam with bias correction",
        statement=(
            "Whatever the gradients are, every entry of A moves by η and every entry of B by λη."
        ),
        hypotheses=("gradients without zeros", "ε → 0", "no weight decay"),
        how=(
            f"Least and largest |ΔA_ij|/η and |ΔB_ij|/λη; d = {D}, k = {K}, r = {RANK}, "
            f"η = {RATE:g}, λ = {listed(RATIOS)}."
        ),
        kind="identity",
        measure=lambda draws: _moves(draws, share=1.0),
        mutant_statement=f"{NEARLY:g}λη",
        mutant=lambda draws: _moves(draws, share=NEARLY),
        trials=100,
        smoke_trials=5,
    ),
)
