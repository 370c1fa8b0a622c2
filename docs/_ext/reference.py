"""The pages of the reference, from what is public and its docstrings.

A docstring here is plain text with `names` in backticks, not reStructuredText: before napoleon
reads it, stars, bars and underscores at the end of a word are taken for what they are, and only
backticks that hold a name become links.
"""

from __future__ import annotations

import functools
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import commands
import public
from public import Name, Page
from rootpages import write
from sphinx.application import Sphinx

# What is a member of a class without being called.
COMPUTED = (property, functools.cached_property, classmethod, staticmethod)
INTRODUCTION = """# Reference

Every public name, from its docstring. `lt` stands for `import loraone_theory as lt`; letters are
those of [the derivations](../derivations.md#setting).

"""


def escaped(line: str) -> str:
    r"""A line of plain text for reStructuredText.

    >>> escaped("|E| of `Trajectory` at r* is X_ and `a * b`")
    '\\|E\\| of `Trajectory` at r\\* is X\\_ and ``a * b``'
    """

    def code(found: re.Match[str]) -> str:
        inner = found[1].strip("`")
        return found[0] if re.fullmatch(r"[A-Za-z][\w.]*\w", inner) else f"``{inner}``"

    parts = re.split(r"(`[^`]+`)", line.replace("``", "`"))
    for i, part in enumerate(parts):
        if i % 2:
            before = "" if re.search(r"(^|[\s\-:/'\"<(\[{])$", parts[i - 1]) else "\\ "
            after = "" if re.match(r"[\s'\")\]}>\-/\\:.,;!?]|$", parts[i + 1]) else "\\ "
            parts[i] = before + re.sub(r"^`([^`]+)`$", code, part) + after
        else:
            part = re.sub(r"([*|\\])", r"\\\1", part)
            parts[i] = re.sub(r"(\w)_(?!\w)", r"\1\\_", part)
    return "".join(parts)


def plain(app: Sphinx, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Escape a docstring, except for its doctests."""
    inside = False
    for i, line in enumerate(lines):
        inside = line.strip().startswith(">>>") or (inside and bool(line.strip()))
        if not inside:
            lines[i] = escaped(line)
    if what in ("property", "attribute"):
        lines.insert(0, "")  # or napoleon takes the words before a colon for a type


def skip(app: Sphinx, what: str, name: str, obj: Any, is_skipped: bool, options: Any) -> bool:
    """Fields of records are described in the docstring of their class."""
    return is_skipped or not (callable(obj) or isinstance(obj, COMPUTED))


def directive(name: Name) -> str:
    """What autodoc is told of one name."""
    if name.kind == "data":
        return "\n".join(
            [
                f".. py:data:: {name.name}",
                f"   :module: {name.module}",
                "",
                f"   {escaped(name.text)}",
                "",
                *rows(name),
            ]
        )
    members = "   :members:\n" if name.kind == "class" else ""
    return f".. auto{name.kind}:: {name.full}\n{members}"


def rows(name: Name) -> list[str]:
    """The rows of a registry of factories or records: name and summary."""
    if not isinstance(name.value, Mapping) or len(name.value) > 60:
        return []
    lines = ["   .. list-table::", "      :widths: 30 70", ""]
    for key, value in name.value.items():
        text = getattr(value, "doc", None) or (value.__doc__ or "")
        summary = escaped(" ".join(text.split("\n\n")[0].split()))
        lines += [f"      * - ``{key}``", f"        - {summary}"]
    return [*lines, ""]


def block(names: list[Name]) -> str:
    """Several names as one block of reStructuredText in a page of Markdown."""
    return "```{eval-rst}\n" + "\n\n".join(map(directive, names)) + "\n```\n"


def page(each: Page) -> str:
    """A page: the names of the package, then its modules."""
    top = public.top(public.OTHERS if each.name == public.OTHERS.name else each)
    parts = [f"# {each.title}\n"]
    if top:
        parts.append(block(top))
    for module in each.modules:
        loaded = f"{public.PACKAGE}.{module}"
        parts.append(f"## {loaded}\n")
        parts.append(f"```{{eval-rst}}\n.. automodule:: {loaded}\n   :no-members:\n```\n")
        own = public.of_module(module)
        if own:
            parts.append(block(own))
    return "\n".join(parts)


def index(pages: list[Page]) -> str:
    """The page of all names with their summaries."""
    parts = [INTRODUCTION, "```{toctree}\n:maxdepth: 1\n"]
    parts += [each.name for each in pages]
    parts.append("commands\n```\n")
    for each in pages:
        parts.append(f"## [{each.title}]({each.name}.md)\n\n```{{eval-rst}}")
        parts.append(".. list-table::\n   :widths: 35 65\n")
        for name in public.names(each):
            short = name.full.replace(f"{public.PACKAGE}.", "")
            parts.append(f"   * - :py:obj:`{short} <{name.full}>`")
            parts.append(f"     - {escaped(name.summary)}")
        parts.append("```\n")
    return "\n".join(parts)


def links_back(app: Sphinx, pagename: str, template: str, context: dict, doctree: Any) -> None:
    """From a source page back to the reference, where each name stands under its public name."""
    module = pagename.removeprefix("_modules/").replace("/", ".")
    if not pagename.startswith("_modules/") or "body" not in context:
        return
    ends = {
        f"{name.value.__module__}:{name.value.__qualname__}": f"reference/{page.name}#{name.full}"
        for page in public.pages()
        for name in public.names(page)
        if name.kind != "data"
    }

    def link(found: re.Match[str]) -> str:
        owner, _, member = found["name"].partition(".")
        end = ends.get(f"{module}:{owner}")
        if end is None:
            return ""
        page, _, anchor = end.partition("#")
        href = app.builder.get_relative_uri(pagename, page)
        anchor += f".{member}" if member else ""
        return f'<a class="viewcode-back" href="{href}#{anchor}">[docs]</a>'

    pattern = rf'<a class="viewcode-back" href="[^"#]*#{public.PACKAGE}\.(?P<name>[^"]+)">.*?</a>'
    short = context["body"].replace(f"#{module}.", f"#{public.PACKAGE}.")
    context["body"] = re.sub(pattern, link, short)


def setup(app: Sphinx) -> dict[str, bool]:
    """Write the pages and register."""
    folder = Path(app.srcdir) / "reference"
    pages = public.pages()
    kept = {f"{each.name}.md" for each in pages} | {"index.md", "commands.md"}
    if folder.exists():
        for path in folder.iterdir():
            if path.name not in kept:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    changed = [write(folder / f"{each.name}.md", page(each)) for each in pages]
    write(folder / "commands.md", commands.page())
    write(folder / "index.md", index(pages))
    if any(changed):  # pages of sources have anchors for what was documented when they were made
        shutil.rmtree(Path(app.outdir) / "_modules", ignore_errors=True)
    app.connect("autodoc-process-docstring", plain, priority=400)
    app.connect("autodoc-skip-member", skip)
    app.connect("html-page-context", links_back)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
