"""Statements as they are typed, "λ_{r*}(G)", as mathematics in HTML and as headings in Markdown.

Letters that stand for quantities become <var>, subscripts <sub>, superscripts <sup>; words stay
words. But for <= and >= the text keeps its characters: it is found and copied as it was typed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from loraone_theory.core.html import Html, escaped, tag

# Letters in a row that are no product.
_ABBREVIATIONS = {"GD", "SGD", "SVD", "QR", "KS", "GA", "SB", "XS", "CPU", "GPU"}
_SHORT_WORDS = {
    "of", "in", "is", "at", "by", "to", "or", "as", "an", "on", "it", "if", "no", "be", "so", "we",
    "do", "up", "us", "go", "tr", "ln",
}  # fmt: skip
_COMBINING = "\u0300-\u036f"
_TOKEN = re.compile(
    rf"""
    (?P<code>`[^`]+`|[a-z]{{2,}}(?:_[a-z]{{2,}})+(?![A-Za-z{{]))
  | (?P<number>\d+(?:\.\d+)?e[+-]?\d+)
  | (?P<marked>[^\W\d_][{_COMBINING}]+)
  | (?P<script>[_^](?:\{{|op\b|max\b|min\b|fail\b|eff\b|dof\b|[−+-]?\d+|\S[{_COMBINING}]*))
  | (?P<word>[A-Za-z][A-Za-z]*(?:[’'-][A-Za-z]+)*)
  | (?P<greek>[α-ωϑϕϖ](?![{_COMBINING}]))
  | (?P<close>\}})
  | (?P<order><=|>=)
  | (?P<rest>.)
    """,
    re.VERBOSE | re.DOTALL,
)


class Piece(NamedTuple):
    """Part of a text: kind "text", "var", "code", "sub" or "sup"; the last two hold pieces."""

    kind: str
    text: str = ""
    inside: tuple[Piece, ...] = ()


def pieces(text: str) -> tuple[Piece, ...]:
    """The parts of a text.

    >>> [piece.kind for piece in pieces("at λ_{r*}")]
    ['text', 'text', 'var', 'sub']
    """
    tokens = _TOKEN.finditer(text)
    return tuple(_until(text, tokens, nested=False))


def _until(text: str, tokens: Iterator[re.Match[str]], *, nested: bool) -> Iterator[Piece]:
    for found in tokens:
        kind, value = found.lastgroup, found[0]
        if kind == "close" and nested:
            return
        if kind == "script":
            yield _script(text, value, tokens)
        elif kind == "code":
            yield Piece("code", value.strip("`"))
        elif kind == "order":
            yield Piece("text", "≤" if value == "<=" else "≥")
        elif kind in ("greek", "marked"):
            yield Piece("var", value)
        elif kind == "word":
            yield from _letters(text, found, nested)
        else:
            yield Piece("text", value)


def _script(text: str, value: str, tokens: Iterator[re.Match[str]]) -> Piece:
    kind = "sub" if value[0] == "_" else "sup"
    if value[1] == "{":
        return Piece(kind, inside=tuple(_until(text, tokens, nested=True)))
    return Piece(
        kind,
        inside=(Piece("var" if value[1:].isalpha() and len(value) == 2 else "text", value[1:]),),
    )


def _letters(text: str, found: re.Match[str], nested: bool) -> Iterator[Piece]:
    """A word, or letters that are quantities."""
    word, before, after = found[0], text[: found.start()], text[found.end() :]
    if _is_product(word, before, after, nested):
        yield from (Piece("var", letter) for letter in word)
    else:
        yield Piece("text", word)


def _is_product(word: str, before: str, after: str, nested: bool) -> bool:
    if not word.isalpha() or word in _ABBREVIATIONS:
        return False
    touches = before[-1:].isdigit() or (after[:1] != "" and after[0] in "₀₁₂₃ᵀ⁻⁺²³ᵗ†_^")
    if len(word) == 1:
        article = word == "a" or (word == "A" and before.strip()[-1:] in ("", ".", ":"))
        return not (article and not nested and re.match(r" [A-Za-z]{2,}\b", after))
    if word.isupper():
        return len(word) <= 3
    if len(word) == 2:
        return word.islower() and word not in _SHORT_WORDS
    return touches and len(word) == 3 and word[0].isupper()


def mathematics(text: str) -> Html:
    """A text with its formulas marked up.

    >>> mathematics("E_t = a < 1")
    '<var>E</var><sub><var>t</var></sub> = <var>a</var> &lt; 1'
    """
    return Html("".join(map(_as_html, pieces(text))))


def _as_html(piece: Piece) -> str:
    if piece.inside or piece.kind in ("sub", "sup"):
        return tag(piece.kind, Html("".join(map(_as_html, piece.inside))))
    return escaped(piece.text) if piece.kind == "text" else tag(piece.kind, piece.text)


_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+!|<>~^$&])")


def heading(text: str) -> str:
    """The same for a heading in MyST Markdown.

    >>> print(heading("E[J] is λ_{r*}"))
    E\\[J\\] is λ{sub}`r*`
    """
    return "".join(map(_as_markdown, pieces(text)))


def _as_markdown(piece: Piece) -> str:
    if piece.kind in ("sub", "sup"):
        return f"{{{piece.kind}}}`{plain(piece.inside)}`"
    return _MARKDOWN.sub(r"\\\1", piece.text)


def plain(parts: tuple[Piece, ...]) -> str:
    """What is left without marks."""
    return "".join(piece.text or plain(piece.inside) for piece in parts)
