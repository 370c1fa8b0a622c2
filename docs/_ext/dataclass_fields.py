"""The fields of a dataclass as its source has them, with the text that stands below each."""

from __future__ import annotations

import ast
import itertools
from typing import NamedTuple


class Field(NamedTuple):
    """A field: its annotation and default are as they are written."""

    name: str
    annotation: str
    default: str
    text: str


def fields(source: str, owner: str) -> dict[str, Field]:
    """The fields of the class `owner`, by name.

    >>> fields("class Config:\\n    d: int = 3\\n    '''Width.'''", "Config")
    {'d': Field(name='d', annotation='int', default='3', text='Width.')}
    """
    classes = (node for node in ast.parse(source).body if isinstance(node, ast.ClassDef))
    body = next(node.body for node in classes if node.name == owner)
    found = {}
    for node, after in itertools.pairwise([*body, ast.Pass()]):
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            default = node.value
            if isinstance(default, ast.Call) and default.args:  # a knob with bounds
                default = default.args[0]
            said = after.value if isinstance(after, ast.Expr) else None
            text = said.value if isinstance(said, ast.Constant) else ""
            found[node.target.id] = Field(
                node.target.id,
                ast.unparse(node.annotation),
                "" if default is None else ast.unparse(default),
                " ".join(str(text).split()),
            )
    return found
