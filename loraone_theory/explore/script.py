"""The script that gives the numbers of the page, to the last bit."""

from __future__ import annotations

from loraone_theory.explore.model import RECORD, Curves, Result
from loraone_theory.explore.settings import Settings

# What a line of theory may call besides `lt.predict`.
HELPERS = (
    ("loraone_theory.predict.curves", "decay"),
    ("loraone_theory.explore.theory", "flow_values"),
)
HEAD = '''"""The numbers of `loraone explore`: runs in `curves`, dashed lines in `theory`."""

import numpy as np
import torch
{imports}
torch.set_num_threads(1)  # the bits depend on how many
problem = {problem}
curves, theory = {{}}, {{}}
'''
PART = """
# {name}, η = {eta:.6g}{chosen}
method = {method}
eta = {eta!r}
run = lt.simulate(
    problem,
    method,
    rank={rank},
    learning_rate=eta,
    steps={steps},
    seeds={seeds!r},{damping}
    record={record!r},
    every={every},
)
steps = run.steps
curves[{name!r}] = {{name: values.numpy() for name, values in run.records.items()}}
ahead = lt.predict.outlook(problem, method, rank={rank}, seeds={seeds!r})
"""
LINE = "theory[{method!r}, {panel!r}, {label!r}] = (\n    {code}\n)\n"
TAIL = """
for method, records in curves.items():
    print(method, {name: float(values[-1].flat[0]) for name, values in records.items()})
"""


def script(result: Result) -> str:
    """Python that draws the problem, runs every method and evaluates every line of theory."""
    settings = result.settings
    drawn = settings.drawn()
    sampler = drawn.function
    text = "".join(_part(settings, curves) for curves in result.curves)
    imports = [f"from {module} import {name}" for module, name in HELPERS if f"{name}(" in text]
    imports.append(f"from {sampler.__module__} import {sampler.__name__}")
    lines = "\n".join(["", "import loraone_theory as lt", *sorted(imports), ""])
    refused = "".join(f"# {name}: {why}\n" for name, why in result.refusals.items())
    return HEAD.format(imports=lines, problem=drawn.written()) + text + refused + TAIL


def _part(settings: Settings, curves: Curves) -> str:
    name, method = curves.method, settings.method(curves.method)
    written = f"lt.methods.get({name!r})"
    if settings.init_std is not None and method.init_std is not None:
        written += f".with_init_std({settings.init_std!r})"
    damping, fraction = method.facts.damping, settings.fraction
    best = settings.outlook(name).best_step
    of_best = fraction is not None and curves.learning_rate == fraction * best
    made = PART.format(
        name=name,
        method=written,
        eta=curves.learning_rate,
        chosen=f" = {fraction:g} of the predicted best step" if of_best else "",
        rank=settings.rank,
        steps=settings.steps,
        seeds=settings.seeds,
        damping=f"\n    damping={damping!r}," if damping else "",
        record=RECORD,
        every=settings.every,
    )
    return made + "".join(
        LINE.format(method=name, panel=line.panel, label=line.label, code=line.code)
        for line in curves.lines
    )
