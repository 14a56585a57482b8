"""Tables: means and standard deviations over seeds, as CSV, Markdown and LaTeX."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from decimal import ROUND_CEILING, ROUND_HALF_EVEN, Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
from tabulate import tabulate

from pbnn.files import write_atomic

MEASURES = (
    "n",
    "kl",
    "gibbs_train",
    "gibbs_test",
    "error_train",
    "error_test",
    "bound_gibbs",
    "bound_vote",
    "bound_holdout",
)
LABELS: Mapping[str, str] = MappingProxyType(
    {
        "dataset": "data set",
        "method": "method",
        "hidden": "hidden",
        "seeds": "seeds",
        "n": "n",
        "kl": "KL",
        "gibbs_test": "Gibbs test",
        "error_test": "vote test",
        "bound_gibbs": "Gibbs bound",
        "bound_gibbs_max": "its worst seed",
        "bound_vote": "vote bound",
        "bound_holdout": "hold-out bound",
        "gap": "gap",
        "vacuous": "vacuous",
    }
)
LATEX = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "±": r"$\pm$",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "\n": " ",
        **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    }
)


def table(
    records: Iterable[Mapping[str, Any]],
    measures: Sequence[str] = MEASURES,
    *,
    by: Sequence[str] = ("dataset", "method"),
    worst: Sequence[str] = ("bound_gibbs",),
    gap: tuple[str, str] | None = ("bound_gibbs", "gibbs_test"),
) -> pd.DataFrame:
    r"""One row per data set and method, in the order of first appearance, over their seeds.

    For a measure :math:`m_1, \ldots, m_s` over :math:`s` seeds, its column holds
    :math:`\bar m = \frac1s \sum_i m_i` and ``<measure>_std`` holds
    :math:`\sqrt{\sum_i (m_i - \bar m)^2 / (s - 1)}`, empty for one seed.

    Parameters
    ----------
    records : iterable of mappings
        Each with ``config`` (``dataset``, ``method``, ``seed``) and ``measures``.
    measures : sequence of str
        The columns; ``n``, the number of certification examples, has no ``_std``.
    by : sequence of str
        The configuration's fields that tell the rows apart; one that is missing is empty.
    worst : sequence of str
        Measures that also get ``<measure>_max``, their largest over the seeds.
    gap : pair of str, optional
        The column ``gap`` is the first minus the second, seed by seed.

    Returns
    -------
    DataFrame
        `by`, ``seeds`` (a count) and the measures. A measure that some seed of a row
        lacks stays empty: a mean over the other seeds would not be comparable.

    Raises
    ------
    ValueError
        If a record lacks its dataset or method, or two of a row have the same seed.

    Examples
    --------
    >>> config = {"dataset": "mnist17", "method": "pbgnet"}
    >>> records = [
    ...     {"config": config | {"seed": s}, "measures": {"bound_gibbs": b, "gibbs_test": 0.0625}}
    ...     for s, b in enumerate([0.125, 0.375])
    ... ]
    >>> row = table(records).loc[0]
    >>> [float(row[name]) for name in ("seeds", "bound_gibbs", "bound_gibbs_max", "gap")]
    [2.0, 0.25, 0.375, 0.1875]
    """
    columns = _columns(measures, worst, gap)
    rows = [
        dict(zip(by, values, strict=True)) | _row(group, measures, worst, gap)
        for values, group in _groups(records, by).items()
    ]
    frame = pd.DataFrame(rows, columns=[*by, "seeds", *columns])
    for name in columns:
        values = frame[name].astype(float)
        whole = name == "n" and bool((values.dropna() % 1 == 0).all())
        frame[name] = values.astype("Int64") if whole else values
    return frame


def _columns(
    measures: Sequence[str], worst: Sequence[str], gap: tuple[str, str] | None
) -> list[str]:
    columns = []
    for name in measures:
        columns.append(name)
        if name != "n":
            columns.append(f"{name}_std")
        if name in worst:
            columns.append(f"{name}_max")
    return columns + (["gap", "gap_std"] if gap else [])


def _groups(
    records: Iterable[Mapping[str, Any]], by: Sequence[str]
) -> dict[tuple[str, ...], list[Mapping[str, Any]]]:
    """Measures by the fields of a row; a seed that occurs twice is refused."""
    groups: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    seen = set()
    for record in records:
        config = record["config"]
        if not config.get("dataset") or not config.get("method"):
            raise ValueError(f"`records` must name a dataset and a method, got {dict(config)!r}.")
        row = tuple(config.get(name) or "" for name in by)
        if (row, config.get("seed")) in seen:
            raise ValueError(
                "`records` must have distinct seeds for a dataset and method, "
                f"got {row} with seed {config.get('seed')!r} twice."
            )
        seen.add((row, config.get("seed")))
        groups.setdefault(row, []).append(record["measures"])
    return groups


def _row(
    group: Sequence[Mapping[str, Any]],
    measures: Sequence[str],
    worst: Sequence[str],
    gap: tuple[str, str] | None,
) -> dict[str, Any]:
    row: dict[str, Any] = {"seeds": len(group)}
    for name in measures:
        values = _values(group, name)
        row |= _summary(name, values)
        if name in worst:
            row[f"{name}_max"] = values.max()
    if gap:
        row |= _summary("gap", _values(group, gap[0]) - _values(group, gap[1]))
    return row


def _values(group: Sequence[Mapping[str, Any]], name: str) -> np.ndarray:
    values = [measures.get(name) for measures in group]
    return np.array([np.nan if value is None else value for value in values], dtype=float)


def _summary(name: str, values: np.ndarray) -> dict[str, float]:
    spread = values.std(ddof=1) if len(values) > 1 else np.nan
    return {name: values.mean(), f"{name}_std": spread}


def write_table(
    frame: pd.DataFrame,
    folder: str | os.PathLike[str],
    name: str = "table",
    *,
    caption: str,
    published: pd.DataFrame | None = None,
    labels: Mapping[str, str] = LABELS,
) -> list[Path]:
    """Write ``<name>.csv`` in full, and ``<name>.md`` and ``<name>.tex`` for reading.

    The last two print mean ± standard deviation. Bounds are rounded up, all else to the nearest.

    Parameters
    ----------
    frame : DataFrame
        From `table`.
    folder : path
        Where to write, each file atomically.
    name : str
        The files' name without suffix.
    caption : str
        The caption.
    published : DataFrame, optional
        Columns ``dataset``, ``method`` and others, headed by their source, with other people's
        values: printed as further columns, and not in the CSV.
    labels : mapping
        Which columns to print, in which order, and what to call them; empty ones are left out.

    Returns
    -------
    list of Path
        The files.

    Raises
    ------
    ValueError
        If `published` lacks ``dataset`` or ``method``, or has two rows for one method.
    """
    paths = [Path(folder) / f"{name}{suffix}" for suffix in (".csv", ".md", ".tex")]
    printed = as_text(frame, labels)
    if published is not None:
        printed = _join(printed, published, labels)
    write_atomic(paths[0], frame.to_csv(index=False, lineterminator="\n"))
    write_atomic(paths[1], _markdown(printed, caption))
    write_atomic(paths[2], _latex(printed, caption))
    return paths


def as_text(frame: pd.DataFrame, labels: Mapping[str, str]) -> pd.DataFrame:
    """The columns to read, as text: bounds rounded up, with deviations where there are some."""
    columns = {}
    for name, label in labels.items():
        if name not in frame or frame[name].isna().all():
            continue
        if pd.api.types.is_numeric_dtype(frame[name]):
            columns[label] = _texts(frame, name)
        else:
            columns[label] = [str(value) for value in frame[name]]
    return pd.DataFrame(columns, index=frame.index)


def _texts(frame: pd.DataFrame, name: str) -> list[str]:
    values = frame[name].astype(float)
    stds = frame[f"{name}_std"] if f"{name}_std" in frame else [np.nan] * len(frame)
    counted = pd.api.types.is_integer_dtype(frame[name])
    digits = 0 if counted else _digits(values.dropna())
    rounding = ROUND_CEILING if name.startswith("bound") else ROUND_HALF_EVEN
    texts = []
    for value, std in zip(values, stds, strict=True):
        text = "" if np.isnan(value) else _rounded(value, digits, rounding)
        texts.append(
            text if np.isnan(std) else f"{text} ± {_rounded(std, digits, ROUND_HALF_EVEN)}"
        )
    return texts


def _digits(values: pd.Series[float]) -> int:
    """Decimals for a column: four for probabilities, fewer for larger numbers."""
    largest = values.abs().max()
    return 4 if largest < 2 else 1 if largest < 10_000 else 0


def _rounded(value: float, digits: int, rounding: str) -> str:
    # Through the shortest decimal: a bound stored as .0389 must not print as .0390.
    return str(Decimal(repr(float(value))).quantize(Decimal(1).scaleb(-digits), rounding))


def _join(
    printed: pd.DataFrame, published: pd.DataFrame, labels: Mapping[str, str]
) -> pd.DataFrame:
    keys = ["dataset", "method"]
    if not set(keys) <= set(published.columns):
        raise ValueError(
            f"`published` must have the columns {keys}, got {list(published.columns)}."
        )
    if published.duplicated(keys).any():
        raise ValueError("`published` must have one row per dataset and method, got several.")
    extra = published.astype(object).where(published.notna(), "").astype(str)
    extra = extra.rename(columns={key: labels[key] for key in keys})
    joined = printed.merge(extra, how="left", on=[labels[key] for key in keys])
    return joined.fillna("")


def _markdown(printed: pd.DataFrame, caption: str) -> str:
    cells = printed.map(lambda text: text.replace("|", r"\|"))
    aligned = ["left", "left"] + ["right"] * (len(cells.columns) - 2)
    grid = tabulate(
        [list(row) for row in cells.itertuples(index=False)],
        headers=[str(label).replace("|", r"\|") for label in cells.columns],
        tablefmt="pipe",
        disable_numparse=True,
        colalign=aligned,
    )
    return f"{caption}\n\n{grid}\n"


def _latex(printed: pd.DataFrame, caption: str) -> str:
    escaped = printed.map(lambda text: text.translate(LATEX))
    escaped.columns = [str(label).translate(LATEX) for label in printed.columns]
    aligned = "ll" + "r" * (len(escaped.columns) - 2)
    styler = escaped.style.hide(axis="index")
    return styler.to_latex(
        hrules=True,
        caption=caption.translate(LATEX),
        column_format=aligned,
        position_float="centering",
    )
