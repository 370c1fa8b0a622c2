"""Finished cells removed by a filter, so that the next run computes them again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from loraone_theory import storage
from loraone_theory.core import validate
from loraone_theory.sweeps.cells import Cell, Cells
from loraone_theory.sweeps.manifest import described
from loraone_theory.sweeps.result import Result
from loraone_theory.sweeps.specification import Specification
from loraone_theory.sweeps.store import Store, locks_of

WORDS = ("all", "failed", "stale")


def delete(spec: Specification, folder: Any, filters: Sequence[str]) -> int:
    """Remove the cells that meet every filter; the number of them.

    Args:
        spec: the sweep.
        folder: where it is kept.
        filters: "all"; "failed"; "stale", what the sweep no longer asks for; "rank=2" or
            "rank=2,3", with a run at one of these coordinates.

    Raises:
        ValueError: another filter, a name or value that the sweep does not have, a folder of
            another sweep, or cells that a run is at work on; nothing is removed.
        FileNotFoundError: the folder holds no sweep.
    """
    result = Result(folder)
    result.store.refuse_other(described(spec))
    wanted = validate.sequence("filters", filters, 'texts, such as "rank=2"')
    if not wanted:
        raise ValueError(
            f"a filter must say what to delete: {', '.join(WORDS)}, or rank=2; got none"
        )
    if "stale" in wanted:
        if len(wanted) > 1:
            raise ValueError("stale cells are no longer part of the sweep; give stale alone")
        known = {cell.key for cell in Cells(spec)}
        return _remove(result.store, [key for key in result.store if key not in known])
    tests = [_test(result, text) for text in wanted]
    there = (cell for cell in result.cells if result.store.has(cell.key))
    return _remove(result.store, [c.key for c in there if all(test(c) for test in tests)])


def _remove(store: Store, keys: Sequence[str]) -> int:
    """All of them or, where a run is at work on one, none; how many."""
    with locks_of(store.folder) as locks:
        if not all(locks.take(key) for key in keys):
            raise ValueError("another run is at work on these cells; stop it first")
        for key in keys:
            store.delete(key)
    return len(keys)


def _test(result: Result, text: Any) -> Callable[[Cell], bool]:
    """Whether a cell meets one filter."""
    validate.instance("a filter", text, str)
    if text == "all":
        return lambda cell: True
    if text == "failed":
        return lambda cell: _failed(result.store, cell)
    name, equals, given = text.partition("=")
    if not equals:
        validate.choice("filter", text, (*WORDS, *(f"{n}=..." for n in result.coordinates)))
    dimension, labels = result.coordinates[
        validate.choice("name in a filter", name, result.coordinates)
    ]
    places = [_place(name, word.strip(), labels) for word in given.split(",")]
    every = {place for found in places for place in found}
    return lambda cell: any(_inside(cell.place, dimension, place) for place in every)


def _failed(store: Store, cell: Cell) -> bool:
    try:
        return bool(store.read(cell.key).about["failure"])
    except storage.DamagedFile:
        return True


def _place(name: str, word: str, labels: Sequence[Any]) -> list[int]:
    """Where a value stands; "1e-3" finds 0.001."""
    texts = [str(label) for label in labels]
    found = [i for i, text in enumerate(texts) if text == word or _number(text) == _number(word)]
    if not found:
        validate.choice(f"{name} in a filter", word, texts)
    return found


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _inside(place: Mapping[str, int | slice], dimension: str, i: int) -> bool:
    here = place[dimension]
    return here == i if isinstance(here, int) else here.start <= i < here.stop
