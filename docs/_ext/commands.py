"""The page of the commands, from the table of commands and the dataclass behind each."""

from __future__ import annotations

import inspect
import re
import sys
from typing import Any

from dataclass_fields import Field, fields

from loraone_theory.cli.commands import COMMANDS

INTRODUCTION = """# Commands

`loraone COMMAND --help` says the same in the terminal.

"""


def option(field: Field) -> str:
    """How an argument is written.

    >>> option(Field("batch_size", "int | None", "None", ""))
    '`--batch-size`'
    >>> option(Field("method", "tyro.conf.Positional[str]", "", ""))
    '`METHOD`'
    """
    if "Positional" in field.annotation:
        return f"`{field.name.upper()}`"
    renamed = re.search(r"name='([^']+)'", field.annotation)
    name = renamed[1] if renamed else field.name
    return f"`--{name.replace('_', '-')}`"


def default(field: Field, module: Any) -> str:
    """The value that an argument has when it is not given.

    >>> default(Field("d", "int", "100", ""), None)
    '`100`'
    """
    if field.default in ("", "None", "()", "False"):
        return ""
    if field.default.isidentifier():
        value = getattr(module, field.default, field.default)
        return f"`{' '.join(map(str, value)) if isinstance(value, tuple) else value}`"
    return f"`{field.default}`"


def section(name: str, command: type) -> str:
    """A command: what it does, and a row for each of its arguments."""
    module = sys.modules[command.__module__]
    text = inspect.cleandoc(command.__doc__ or "").replace("|", "\\|")
    found = fields(inspect.getsource(module), command.__name__).values()
    rows = [f"| {option(f)} | {default(f, module)} | {cell(f.text)} |" for f in found]
    head = ["| argument | default | meaning |", "| --- | --- | --- |"]
    return "\n".join([f"## loraone {name}\n", text, "", *(head if rows else []), *rows, ""])


def cell(text: str) -> str:
    """A text in a table of Markdown."""
    return re.sub(r"([|*<])", r"\\\1", text)


def page() -> str:
    """Every command, in the order of their names."""
    return INTRODUCTION + "\n".join(section(name, COMMANDS[name]) for name in sorted(COMMANDS))
