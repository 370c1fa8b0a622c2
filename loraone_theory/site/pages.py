"""All pages of the claims, written to a folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from loraone_theory import experiment, shipped, storage
from loraone_theory.claims import PAPERS, verdict
from loraone_theory.site.claim_page import claim_page
from loraone_theory.site.entries import Entry, collected
from loraone_theory.site.html import Page
from loraone_theory.site.index_page import index_page
from loraone_theory.site.links import Around
from loraone_theory.site.paper_page import name_of, paper_page
from loraone_theory.site.source_page import source_pages

# Names the pages that were written here, so that no other is ever removed.
LIST = ".pages.json"


def write(
    folder: str | Path, *, records: str | Path | None = None, draws: str | Path | None = None
) -> list[Path]:
    """Write the pages; those that have not changed are left alone, those of former claims go.

    Args:
        folder: of the pages, within that of the site's sources.
        records: the verdict file; by default that of the repository.
        draws: the folder of what was drawn; by default "draws" beside the verdict file.

    Returns:
        The files of the pages.

    Raises:
        storage.DamagedFile: records or draws that cannot be read.
    """
    folder = storage.as_path(folder)
    path = shipped.folder("records") / "verdicts.json" if records is None else Path(records)
    where = path.parent / "draws" if draws is None else Path(draws)
    entries = collected(PAPERS, verdict.load(path), where)
    files = [_written(folder, page) for page in pages(entries, folder.parent)]
    names = [file.relative_to(folder).as_posix() for file in files]
    before = storage.load_json(folder / LIST) if (folder / LIST).exists() else []
    for name in set(before) - set(names):
        (folder / name).unlink(missing_ok=True)
    storage.save_json(folder / LIST, names)
    return files


def pages(entries: list[Entry], docs: Path) -> Iterator[Page]:
    """The pages of these claims.

    Args:
        entries: the claims, in the order of the report.
        docs: the folder of the site's sources.
    """
    root = Path(__file__).resolve().parents[2]
    by_id = {entry.id: entry for entry in entries}
    version = storage.provenance()["versions"]["loraone-theory"]
    around = Around(by_id, docs.resolve(), root, version, tuple(experiment.find()))
    papers = [(p, [e for e in entries if e.paper.id == p.id]) for p in PAPERS]
    papers = [(paper, own) for paper, own in papers if own]
    yield index_page(entries, [name_of(paper) for paper, _ in papers])
    for paper, own in papers:
        yield paper_page(paper, own, by_id)
    for entry in entries:
        yield claim_page(entry, around)
    yield from source_pages(entries, root)


def _written(folder: Path, page: Page) -> Path:
    """The file of a page, written where its text has changed."""
    path = folder / f"{page.name}.md"
    if not path.exists() or path.read_text(encoding="utf-8") != page.text:
        path.parent.mkdir(parents=True, exist_ok=True)
        storage.save_text(path, page.text)
    return path
