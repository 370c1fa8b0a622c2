"""Faults of what a user brought, which end a command with one line."""

from __future__ import annotations


class BrokenClaim(RuntimeError):
    """A claim or its mutant raised an error, or gave evidence that cannot be judged."""
