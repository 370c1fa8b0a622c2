"""The gallery: a page for each experiment, from its script and from what it has stored.

Nothing is run: the script is read as text, the figures, data and their origin are the committed
ones.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dataclass_fields import Field, fields
from rootpages import write
from sphinx.application import Sphinx

from loraone_theory import experiment
from loraone_theory.claims import CLAIMS

INTRODUCTION = """# Gallery

Every experiment: its figure, what was expected of it before it was run, the script, the data and
the command that makes both again. `loraone reproduce` makes all of them.

"""


@dataclass(frozen=True)
class Script:
    """An experiment as its files tell it.

    Args:
        path: of the script.
        figures: the folder of the committed figures and data.
        others: names of all experiments, so that a figure goes to the right one.
        preset: of the figures.
    """

    path: Path
    figures: Path
    others: tuple[str, ...]
    preset: str = ""

    @property
    def name(self) -> str:
        """As `loraone reproduce` takes it."""
        return self.path.stem

    @property
    def text(self) -> str:
        """The script."""
        return self.path.read_text(encoding="utf-8")

    @property
    def title(self) -> str:
        """The first line of its docstring, without the full stop."""
        return experiment.summary(self.path).rstrip(".")

    @property
    def expected(self) -> str:
        """The comment above Config that says what is to be seen."""
        found = re.search(r"^# Expect: ((?:.+\n(?:# )?)+?)(?=@|class )", self.text, re.M)
        return "" if found is None else capitalised(" ".join(found[1].replace("\n# ", " ").split()))

    @property
    def about(self) -> dict[str, Any]:
        """What was stored with the data: config, seeds, time, versions, commit."""
        return json.loads((self.figures / f"{self.name}.json").read_text(encoding="utf-8"))

    def pictures(self) -> list[Path]:
        """Its figures, the one of its own name first."""
        found = sorted(self.figures.glob(f"{self.name}*.png"), key=lambda path: len(path.stem))
        longer = [other for other in self.others if len(other) > len(self.name)]
        return [p for p in found if not any(p.stem.startswith(other) for other in longer)]

    @property
    def at_full_size(self) -> Script | None:
        """The same with what its preset "full" gave, where that is committed."""
        folder = self.figures / "full"
        there = (folder / f"{self.name}.json").exists()
        return replace(self, figures=folder, preset="full") if there else None

    @property
    def command(self) -> str:
        """What makes figures and data again."""
        if self.preset:
            where = f"figures/{self.figures.name}"
            return f"`python experiments/{self.name}.py --preset {self.preset} --out {where}`"
        return (
            f"`loraone reproduce {self.name}`; its smallest size "
            f"`loraone reproduce {self.name} --smoke --out some/folder`"
        )

    def knobs(self) -> list[Field]:
        """What the experiment can be told."""
        base = fields(Path(experiment.__file__).read_text(encoding="utf-8"), "Config")
        return list({**base, **fields(self.text, "Config")}.values())


def capitalised(text: str) -> str:
    """A sentence from what stands after a colon.

    >>> capitalised("the loss falls.")
    'The loss falls.'
    """
    return text[:1].upper() + text[1:]


def scripts(root: Path) -> list[Script]:
    """The experiments of a checkout, by name."""
    found = experiment.find(root / "experiments")
    return [Script(path, root / experiment.FIGURES, tuple(found)) for path in found.values()]


def duration(seconds: float) -> str:
    """A time as one says it.

    >>> duration(98.8), duration(3.21), duration(4020)
    ('1 min 39 s', '3.2 s', '1 h 7 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def place(path: Path) -> str:
    """A file of the figures as the repository has it.

    >>> place(Path("/home/x/figures/full/fig_a.png"))
    'figures/full/fig_a.png'
    """
    last = len(path.parts) - 1 - path.parts[::-1].index(experiment.FIGURES)
    return "/".join(path.parts[last:])


def picture(path: Path, script: Script, *, target: str = "", caption: str = "") -> str:
    """A figure with its description."""
    options = f":target: {target}\n" if target else ""
    return (
        f"```{{figure}} ../../{place(path)}\n:alt: {script.title}\n:loading: lazy\n"
        f"{options}\n{caption}\n```\n"
    )


def claims_of(script: Script) -> list[str]:
    """Claims whose page shows one of the figures, linked where there is a page of them."""
    shown = {path.name for path in script.pictures()}
    return [f"{{claim}}`{c.id}`: {c.title}" for c in CLAIMS.values() if c.figure in shown]


def made(script: Script) -> str:
    """How the stored figure was made, line by line."""
    about, name = script.about, script.name
    versions = ", ".join(f"{key} {value}" for key, value in about["versions"].items())
    rows = {
        "command": script.command,
        "script": f"[experiments/{name}.py](../../experiments/{name}.py)",
        "data": f"[{name}.npz](../../{place(script.figures / name)}.npz), "
        f"[what made them](../../{place(script.figures / name)}.json)",
        "vector graphics": ", ".join(
            f"[{path.stem}.pdf](../../{place(path.with_suffix('.pdf'))})"
            for path in script.pictures()
        ),
        "run time": f"{duration(about['wall_time_s'])} on {about['cores']} cores, "
        f"{about['platform']}",
        "seeds": f"{min(about['seeds'])} to {max(about['seeds'])}",
        "commit": f"`{about['commit'][:12]}`",
        "versions": versions,
    }
    lines = [f"| {key} | {value} |" for key, value in rows.items()]
    return "\n".join(["| of the run | is |", "| --- | --- |", *lines, ""])


def page(script: Script) -> str:
    """The page of an experiment."""
    given = script.about["config"]
    parts = [f"# {script.title}\n", f"`{script.name}`\n"]
    parts += [picture(path, script) for path in script.pictures()]
    table = script.figures / f"{script.name}.md"
    if table.exists():
        parts.append(table.read_text(encoding="utf-8"))
    if script.expected:
        parts.append(f"## What is expected to be seen\n\n{script.expected}\n")
    parts.append(f"## How it was made\n\n{made(script)}")
    full = script.at_full_size
    if full is not None:
        parts.append("## At full size\n")
        parts += [picture(path, full) for path in full.pictures()]
        parts.append(made(full))
    rows = [
        f"| `{knob.name}` | {cell(given.get(knob.name, knob.default))} | {knob.text} |"
        for knob in script.knobs()
    ]
    head = "| knob | here | meaning |\n| --- | --- | --- |\n"
    parts.append("## Knobs\n\n" + head + "\n".join(rows) + "\n")
    claims = claims_of(script)
    if claims:
        parts.append("## Claims with this figure\n\n" + "\n".join(f"- {c}" for c in claims) + "\n")
    parts.append(
        f"## Script\n\n```{{literalinclude}} ../../experiments/{script.name}.py\n"
        ":language: python\n```\n"
    )
    return "\n".join(parts)


def cell(value: Any) -> str:
    """A value of a config in a table."""
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return f"`{text}`" if text else "none"


def index(found: list[Script]) -> str:
    """All figures, each a link to its page."""
    names = "\n".join(script.name for script in found)
    cards = "\n".join(
        picture(
            script.pictures()[0],
            script,
            target=f"{script.name}.html",
            caption=f"[{script.title}]({script.name}.md)",
        )
        for script in found
    )
    return (
        f"{INTRODUCTION}```{{toctree}}\n:hidden:\n\n{names}\n```\n\n"
        f"::::{{container}} gallery\n\n{cards}\n::::\n"
    )


def setup(app: Sphinx) -> dict[str, bool]:
    """Write the pages."""
    folder = Path(app.srcdir) / "gallery"
    found = scripts(Path(app.srcdir).parent)
    for script in found:
        write(folder / f"{script.name}.md", page(script))
    write(folder / "index.md", index(found))
    kept = {"index", *(script.name for script in found)}
    for path in folder.glob("*.md"):
        if path.stem not in kept:
            path.unlink()
    return {"parallel_read_safe": True, "parallel_write_safe": True}
