"""Pages of the claims, for the site: written in MyST Markdown, for Sphinx to read.

An index that filters, a page and a graph for each paper, a page for each claim, and the files in
which claims are measured. All of it follows from the claims and from `records/`.
"""

from loraone_theory.site.pages import write

__all__ = ["write"]
