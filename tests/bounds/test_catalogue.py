"""The catalogue: complete, and printed in docs/catalogue.md.

After a deliberate change, `make api` rewrites the page; its diff shows what users will notice.
"""

from __future__ import annotations

import inspect
import os
from pathlib import Path

from tabulate import tabulate

import pbnn.bounds as pb
from pbnn.bounds import CATALOGUE
from pbnn.bounds.catalogue import Bound

PAGE = Path(__file__).parents[2] / "docs" / "catalogue.md"
HEAD = """\
# Every bound

Made from `pbnn.bounds.CATALOGUE` by `make api`: names are its keys, and what is called stands
beside them. *Simulated* bounds are those whose promise `make coverage` counts; the others say why
not. Functions and formulas: `help(pbnn.bounds.maurer)`.
"""
# Public functions that bound nothing by themselves.
TOOLS = {
    *("binary_kl", "kl_inverse", "log_kt", "log_xi", "catoni_optimal_c", "vector_kl_worst"),
    *("best_of", "delta_each", "share_delta", "union_price"),
}


def call(bound: Bound) -> str:
    """How to call it; a member of a family is its function with an argument given."""
    function = getattr(bound.function, "func", bound.function)
    signature = inspect.signature(bound.function)
    plain = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for name, parameter in signature.parameters.items()
        if name in bound.inputs
    ]
    shown = signature.replace(parameters=plain, return_annotation=inspect.Signature.empty)
    return f"{function.__name__}{shown}"


def page() -> str:
    kinds: dict[str, list[list[str]]] = {}
    for name, bound in CATALOGUE.items():
        row = [f"`{name}`", f"`{call(bound)}`", bound.conditions, bound.source, bound.coverage]
        kinds.setdefault(bound.quantity, []).append(row)
    headers = ["name", "call", "conditions", "source", "coverage"]
    parts = [
        f"\n## Bounds on the {kind}\n\n{tabulate(rows, headers, tablefmt='github')}\n"
        for kind, rows in sorted(kinds.items())
    ]
    return HEAD + "".join(parts)


def test_every_public_function_is_in_the_catalogue():
    functions = {name for name in pb.__all__ if inspect.isfunction(getattr(pb, name))}
    listed = {bound.function for bound in CATALOGUE.values()}
    assert {name for name in functions if getattr(pb, name) not in listed} == TOOLS


def test_each_entry_says_what_it_is():
    for name, bound in CATALOGUE.items():
        assert bound.inputs, name
        assert "delta" in bound.inputs or name == "derandomised"
        assert all((bound.quantity, bound.conditions, bound.source, bound.coverage))


def test_the_page_in_the_docs_is_the_catalogue():
    if os.environ.get("PBNN_UPDATE_API") == "1":
        PAGE.write_text(page(), encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == page(), "run `make api` and review the diff"
