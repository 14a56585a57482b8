"""Tables and figures of `bound_tightness`, from its CSV files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from tabulate import tabulate

from pbnn.reporting.drawing import GREY, fit, label_rows, look_of, make_panels

BEST = "maurer_xi"
DOMINATED = (
    "maurer",
    "catoni",
    "anytime",
    "seeger",
    "quadratic (tight)",
    "quadratic",
    "thiemann",
    "fast_rate",
    "tolstikhin_seldin",
    "mcallester",
)
"""Larger constants in `BEST`, and relaxations of it: never below it, whatever the losses."""
RIGHT = " (right guess)"
TEST_SET, TEST_HALF = "clopper_pearson (n)", "clopper_pearson (n/2)"

REGIMES = {
    "learned prior": (0.01, 1e-3, 60_000),
    "learned prior, no errors": (0.0, 1e-3, 60_000),
    "easy task": (0.02, 0.02, 60_000),
    "data-free prior": (0.05, 0.05, 60_000),
    "noisy task": (0.2, 0.01, 10_000),
    "few data": (0.1, 0.1, 1_000),
    "large KL": (0.1, 0.3, 60_000),
}
"""Risk, KL/n and n of the columns of the first tables."""
FIGURE_N = 60_000
FEW_NATS, SMALL = 10.0, 0.1


def page_of(
    about: dict[str, Any], grid: pd.DataFrame, won: pd.DataFrame, drawn: pd.DataFrame
) -> str:
    """What to use when, with the numbers of the CSV files."""
    delta, guess = grid["delta"].iloc[0], about["guess"]
    parts = [
        "# Which bound to use when",
        f"Computed by `{about['command']}`: {won.groupby('losses').size().iloc[0]} points of risk, "
        f"KL/n and n for each kind of losses, δ = {delta:g}.",
        "\n".join(f"- {rule}" for rule in rules(grid, won, drawn)),
        "## Losses of 0 or 1",
        "The least bound, and by how much the others exceed it. Last, the exact test-set bound for "
        "the same risk on n examples, and on half as many, that training has not seen.",
        regime_table(grid[grid["losses"] == "0/1"]),
        f"The least bound at n = {FIGURE_N:,}, and what it takes off the bound `{BEST}`:",
        winner_map(won[won["losses"] == "0/1"]),
        "![Excess against risk](excess_by_risk.png)",
        "## Soft losses",
        f"Losses in [0, 1] with {about['variances']['soft']:.0%} of the variance of losses of 0 or "
        "1, such as error probabilities of an analytic last layer.",
        regime_table(grid[grid["losses"] == "soft"]),
        f"The least bound at n = {FIGURE_N:,}, and what it takes off the bound `{BEST}`:",
        winner_map(won[won["losses"] == "soft"]),
        "![Excess against n](excess_by_n.png)",
        "## How often each is least",
        f"Larger constants and relaxations of `{BEST}` are never below it and are left out here. "
        "The gain is the share of its bound that the least one takes off.",
        winner_table(won),
        f"## What relaxations of `{BEST}` lose",
        "What is added to the excess (bound less risk), where the relaxed bound is below 1: median "
        "over KL/n and n, and the worst.",
        relaxation_table(grid),
        "## The Monte-Carlo step",
        "Upper bounds on the empirical Gibbs risk from m losses, δ' = "
        f"{drawn['delta'].iloc[0]:g}, median over {drawn['seeds'].iloc[0]} samples. In each cell "
        "the least of `monte_carlo` (Chernoff), `maurer_pontil` and `betting`, and its distance to "
        "the mean as a share of Chernoff's; in brackets that of `clopper_pearson`, which asks for "
        "losses of 0 or 1 of one distribution.",
        monte_carlo_table(drawn),
        "![Excess against variance](monte_carlo.png)",
        "## What the bounds were told",
        f"Fixed beforehand for the whole grid at a guess of risk {guess['risk']:g} and KL/n "
        f"{guess['kl_per_n']:g}: the best `C` of `catoni_fixed` and `lam` of `alquier` there, and "
        "the `mu` of `split_kl`, which is the guessed risk. With (right guess) the guess is the "
        "truth of each point, which bounds what guessing can bring. Those that hold at every "
        "temperature have their best: `catoni`, `thiemann` and `fast_rate` as they do by default, "
        "`catoni_union` among 301 values. The variance is that of a posterior whose predictors all "
        "have the same risk, with losses of 0 or 1 the largest that the Gibbs risk allows. Soft "
        "losses have a Beta distribution, of which `split_kl` sees more than the variance. The "
        "test set has the nearest number of errors.",
        "Left out of the catalogue:",
        left_out_list(about["left_out"]),
    ]
    return "\n\n".join(parts) + "\n"


def rules(grid: pd.DataFrame, won: pd.DataFrame, drawn: pd.DataFrame) -> Iterator[str]:
    """The recommendation, each with what was counted."""
    sharp = won[won["least"] != "vacuous"]
    many = sharp[sharp["kl_per_n"] * sharp["n"] >= FEW_NATS]
    hard, soft = (many[many["losses"] == kind] for kind in won["losses"].unique())
    low = hard["risk"] <= SMALL
    beaten = hard.loc[hard["least"] != BEST, "gain"]
    yield (
        f"Losses of 0 or 1 and a KL divergence of {FEW_NATS:g} nats or more: `{BEST}`, that is "
        f'`maurer` with `constant="xi"`. It is least at {len(hard) - len(beaten)} of {len(hard)} '
        f"points; at the others the least is lower by {beaten.median():.1%} (median, at most "
        f"{beaten.max():.0%})."
    )
    table = excess_table(grid[grid["losses"] == "0/1"])
    table = table[table["catoni_fixed"] + table.index.get_level_values("risk") < 1]
    exact, guessed = table[BEST] / table["maurer"], table["catoni_fixed"] / table[BEST]
    right = table["catoni_fixed" + RIGHT] / table[BEST]
    yield f"The exact constant costs nothing and takes up to {1 - exact.min():.1%} off the excess."
    yield (
        "A temperature fixed beforehand saves the constant: `catoni_fixed` with the right guess "
        f"takes {1 - right.median():.1%} (median) off the excess of `{BEST}`, with one guess for "
        f"the whole grid it adds {guessed.median() - 1:.0%} (median, at worst "
        f"{guessed.max():.0f} times the excess). It pays where the KL divergence is a few nats, or "
        "risk and KL are known before."
    )
    names = ("unexpected_bernstein", "empirical_bernstein", "split_kl")
    gain = soft.loc[soft["least"].isin(names), "gain"]
    yield (
        f"Soft losses: a bound that sees more than the mean is least at {len(gain)} of {len(soft)} "
        f"points with {FEW_NATS:g} nats or more, and takes {gain.median():.0%} (median, at most "
        f"{gain.max():.0%}) off that of `{BEST}`: " + "; ".join(choices(soft)) + "."
    )
    closed = [part["closed_form"].value_counts() for part in (hard[low], hard[~low])]
    loss = hard["closed_form_loss"]
    yield (
        f"A closed form: `quadratic` with `tight=True` is least at {closed[0]['quadratic (tight)']}"
        f" of {closed[0].sum()} points of a risk up to {SMALL:g}, `mcallester` at "
        f"{closed[1]['mcallester']} of {closed[1].sum()} above. The better one exceeds the least "
        f"bound by {loss.median():.0%} (median, at most {loss.max():.0%})."
    )
    general = drawn[(drawn["variance_ratio"] < 1) & (drawn["bound"] != "clopper_pearson")]
    wins = general[general["least"]]["bound"].value_counts()
    yield (
        f"Monte-Carlo step: `betting` for soft losses (least in {wins['betting']} of {wins.sum()} "
        "settings), `clopper_pearson` or `monte_carlo` for losses of 0 or 1."
    )
    held_out = grid[grid["bound"].isin([TEST_HALF, BEST]) & (grid["losses"] == "0/1")]
    both = held_out.pivot(index=["risk", "kl_per_n", "n"], columns="bound", values="value")
    kl = both.index.get_level_values("kl_per_n") * both.index.get_level_values("n")
    less = 1 - (both[TEST_HALF] / both[BEST])[(kl >= FEW_NATS) & (both[BEST] < 1)]
    yield (
        "A hold-out of half the examples has, at the same risk, a bound lower by "
        f"{less.median():.0%} (median, from {less.min():.0%} to {less.max():.0%}; "
        f"{FEW_NATS:g} nats or more, losses of 0 or 1): PAC-Bayes pays where training on "
        "all of them lowers the risk by more, or no example can be spared."
    )
    yield (
        "All this is to be chosen before the data are seen; to take the least of several costs "
        "their share of δ, see `pbnn.bounds.best_of`."
    )


def choices(soft: pd.DataFrame) -> Iterator[str]:
    """Which bound is least most often, by the ratio of KL/n to the risk."""
    ratio = soft["kl_per_n"] / soft["risk"].clip(lower=1e-12)
    for text, part in (
        ("KL/n at least the risk", soft[ratio >= 1]),
        ("below", soft[(ratio < 1) & (ratio >= 0.1)]),
        ("below a tenth", soft[ratio < 0.1]),
    ):
        counts = part["least"].value_counts()
        told = ", ".join(f"`{name}` {count}" for name, count in counts.items())
        yield f"{text}, {told}"


def left_out_list(reasons: dict[str, str]) -> str:
    """What was left out, by reason."""
    grouped: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        grouped.setdefault(reason, []).append(f"`{name}`")
    return "\n".join(f"- {reason}: {', '.join(names)}" for reason, names in grouped.items())


def excess_table(grid: pd.DataFrame) -> pd.DataFrame:
    """Points as rows, bounds as columns."""
    return grid.pivot(index=["risk", "kl_per_n", "n"], columns="bound", values="excess")


def at_point(frame: pd.DataFrame, risk: float, kl_per_n: float, n: int) -> pd.DataFrame:
    """The rows of one point of the grid."""
    here = (frame["risk"] == risk) & (frame["kl_per_n"] == kl_per_n) & (frame["n"] == n)
    return frame[here]


def regime_table(grid: pd.DataFrame) -> str:
    """Bounds as rows, best first; how far each is above the least at the points of `REGIMES`."""
    at = {name: at_point(grid, *key) for name, key in REGIMES.items()}
    at = {name: rows.set_index("bound") for name, rows in at.items()}
    ratios = pd.DataFrame({name: rows["ratio"] for name, rows in at.items()})
    last = [name for name in (TEST_SET, TEST_HALF) if name in ratios.index]
    labels = merged(ratios.T, [*dict.fromkeys([BEST, *DOMINATED, *ratios.drop(last).index])])
    order = [*ratios.loc[[*labels]].median(axis=1).sort_values(kind="stable").index, *last]
    labels |= {name: name for name in last}
    head = [
        ["risk, KL/n", *(f"{risk:g}, {kl:g}" for risk, kl, _ in REGIMES.values())],
        ["n", *(f"{n:,}" for *_, n in REGIMES.values())],
        [
            "least bound",
            *(f"{rows['value'].iloc[0] / rows['ratio'].iloc[0]:.4f}" for rows in at.values()),
        ],
    ]
    body = [
        [f"`{labels[name]}`", *(percent(ratio - 1) for ratio in ratios.loc[name])] for name in order
    ]
    return markdown([*head, *body], ["", *REGIMES])


def winner_table(won: pd.DataFrame) -> str:
    """How many points each bound wins, and what it gains on the best kl bound."""
    rows: list[list[str]] = []
    many = won["kl_per_n"] * won["n"] >= FEW_NATS
    for (kind, least), group in won.groupby(["losses", "least"], sort=False):
        cells: list[str] = []
        for part in (group[~many[group.index]], group[many[group.index]]):
            gains = ["", ""]
            if least not in (BEST, "vacuous") and len(part):
                gains = [f"{part['gain'].median():.1%}", f"{part['gain'].max():.1%}"]
            cells += [str(len(part)), *gains]
        rows.append([str(kind), least if least == "vacuous" else f"`{least}`", *cells])
    rows.sort(key=lambda row: (row[0], -int(row[2]) - int(row[5])))
    few = [f"below {FEW_NATS:g} nats", "median gain", "largest"]
    return markdown(rows, ["losses", "least", *few, f"{FEW_NATS:g} or more", *few[1:]])


def winner_map(won: pd.DataFrame) -> str:
    """The least bound for each risk and KL/n."""
    shown = (1e-4, 1e-3, 0.01, 0.05, 0.3)
    rows = []
    for risk in won["risk"].unique():
        cells = [at_point(won, risk, level, FIGURE_N).iloc[0] for level in shown]
        told = [
            f"`{row['least']}`" + (f" {row['gain']:.1%}" if row["least"] != BEST else "")
            for row in cells
        ]
        rows.append([f"{risk:g}", *told])
    return markdown(rows, ["risk", *(f"KL/n {level:g}" for level in shown)])


def relaxation_table(grid: pd.DataFrame) -> str:
    """What each relaxation adds to the excess of the best kl bound, by risk."""
    shown = (0.0, 0.01, 0.05, 0.2, 0.4)
    table = excess_table(grid[grid["losses"] == "0/1"])
    rows = []
    for name, label in merged(table, DOMINATED).items():
        line = [f"`{label}`"]
        for risk in shown:
            mine = table.loc[risk]
            loss = (mine[name] / mine[BEST])[mine[name] + risk < 1] - 1
            line.append(f"{percent(loss.median())} ({percent(loss.max())})")
        rows.append(line)
    return markdown(rows, ["", *(f"risk {risk:g}" for risk in shown)])


def monte_carlo_table(drawn: pd.DataFrame) -> str:
    """The least bound for each mean and variance, and its share of Chernoff's excess."""
    rows, draws = [], drawn["m"].unique()
    for mean, ratio in product(drawn["mean"].unique(), drawn["variance_ratio"].unique()):
        line = [f"{mean:g}", f"{ratio:g}"]
        for m in draws:
            at = (drawn["mean"] == mean) & (drawn["variance_ratio"] == ratio) & (drawn["m"] == m)
            excess = drawn[at].set_index("bound")["excess"]
            share = excess / excess["monte_carlo"]
            general = share.drop("clopper_pearson", errors="ignore")
            cell = f"`{general.idxmin()}` {general.min():.0%}"
            if "clopper_pearson" in share:
                cell += f" ({share['clopper_pearson']:.0%})"
            line.append(cell)
        rows.append(line)
    return markdown(rows, ["mean", "variance ratio", *(f"m = {m:,}" for m in draws)])


def percent(share: float) -> str:
    """A loss in per cent with its sign; nothing for a missing one."""
    if np.isnan(share):
        return ""
    return f"{100 * share:+.{0 if abs(share) >= 0.1 else 1}f}%".replace("-0.0", "+0.0")


def markdown(rows: Sequence[Sequence[Any]], headers: Sequence[str]) -> str:
    """A table whose cells stay as they are."""
    return tabulate(rows, headers, tablefmt="pipe", disable_numparse=True)


OTHERS = (
    "catoni_fixed" + RIGHT,
    "catoni_fixed",
    "catoni_union",
    "split_kl",
    "unexpected_bernstein",
    "empirical_bernstein",
    "alquier",
)
ABSOLUTE = (BEST, "quadratic", "tolstikhin_seldin", "mcallester", TEST_HALF, TEST_SET)
GROWING = (
    BEST,
    "split_kl",
    "unexpected_bernstein",
    "empirical_bernstein",
    "catoni_fixed",
    "quadratic",
    "mcallester",
    "alquier",
    TEST_HALF,
)
ORDER = (
    BEST,
    "quadratic",
    "tolstikhin_seldin",
    "mcallester",
    "fast_rate",
    "seeger",
    "maurer",
    "anytime",
    "quadratic (tight)",
    "empirical_bernstein",
    "catoni_union",
    "unexpected_bernstein",
    "split_kl",
    "catoni_fixed",
    "alquier",
    "catoni_fixed" + RIGHT,
)
"""Places in the cycle of colours and markers, so that no panel has a colour twice side by side."""
HELD_OUT = {
    TEST_SET: {"color": GREY, "linestyle": ":"},
    TEST_HALF: {"color": GREY, "linestyle": "--"},
}
PANELS = (1e-3, 0.01, 0.05)
LEAST_SHOWN = 0.003  # per cent; six digits of the CSV file do not tell less


def merged(table: pd.DataFrame, names: Sequence[str]) -> dict[str, str]:
    """Name → label of the lines to draw: bounds that are equal everywhere share one."""
    labels: dict[str, str] = {}
    for name in names:
        if name not in table:
            continue
        same = [first for first in labels if np.allclose(table[first], table[name], rtol=1e-5)]
        if same:
            labels[same[0]] += f" = {name}"
        else:
            labels[name] = name
    return labels


def lines(axes: Axes, table: pd.DataFrame, labels: dict[str, str]) -> None:
    """A line for each label, in the look that its bound has in every figure."""
    for name, label in labels.items():
        look: dict[str, Any] = dict(HELD_OUT.get(name) or look_of(ORDER, name))
        look["zorder"] = 4 if name == BEST else 3
        axes.plot(table.index, table[name], label=label, markersize=3.5, **look)


def beside(axes: Axes) -> None:
    """The legend of a row, to the right of its last panel."""
    axes.legend(loc="center left", bbox_to_anchor=(1.02, 0.5), borderaxespad=0)


def by_risk_figure(grid: pd.DataFrame) -> Figure:
    """Excess against risk: a few bounds as they are, and all relative to the best kl bound."""
    mine = grid[(grid["losses"] == "0/1") & (grid["n"] == FIGURE_N)]
    tables = [
        mine[mine["kl_per_n"] == level].pivot(index="risk", columns="bound", values="excess")
        for level in PANELS
    ]
    relative = [table.div(table[BEST], axis=0) for table in tables]
    above = [(100 * (table - 1)).clip(lower=LEAST_SHOWN) for table in relative]
    every = pd.concat(tables)
    figure, panels = make_panels(len(PANELS), [1.0, 1.0, 1.0], height=5.6)
    bands = ((ABSOLUTE, tables), (DOMINATED, above), (OTHERS, relative))
    for row, (names, shown) in zip(panels, bands, strict=True):
        labels = merged(every, names)
        values = [value for table in shown for value in table[list(labels)].to_numpy().ravel()]
        for axes, table in zip(row, shown, strict=True):
            lines(axes, table, labels)
            fit(axes, "x", [*table.index])
            fit(axes, "y", values)
        for axes in row[1:]:
            axes.tick_params(labelleft=False)
        beside(row[-1])
    for axes, kl_per_n in zip(panels[0], PANELS, strict=True):
        axes.set_title(f"KL/n = {kl_per_n:g}")
    for axes in panels[-1]:
        axes.set_xlabel("empirical risk")
    label_rows(panels[0], "excess (bound − risk)")
    label_rows(panels[1], f"excess above that of {BEST} (%)")
    label_rows(panels[2], f"excess / that of {BEST}")
    figure.align_ylabels()
    figure.suptitle(f"Losses of 0 or 1, n = {FIGURE_N:,}")
    return figure


def by_n_figure(grown: pd.DataFrame) -> Figure:
    """Excess against n at a fixed risk and KL, for both kinds of losses."""
    kinds, first = grown["losses"].unique(), grown.iloc[0]
    figure, (panels,) = make_panels(len(kinds), [1.0], height=2.6)
    for axes, kind in zip(panels, kinds, strict=True):
        table = grown[grown["losses"] == kind].pivot(index="n", columns="bound", values="excess")
        lines(axes, table, merged(table, GROWING))
        axes.set_title(f"{kind} losses")
        fit(axes, "x", [*table.index])
        fit(axes, "y", [*grown.loc[grown["bound"].isin(GROWING), "excess"]])
        axes.set_xlabel("n")
    label_rows(panels, "excess (bound − risk)")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    figure.suptitle(f"Risk {first['risk']:g}, KL {first['kl_per_n'] * first['n']:g} nats")
    return figure


def monte_carlo_figure(drawn: pd.DataFrame) -> Figure:
    """Excess of the bounds of the Monte-Carlo step against the variance of the losses."""
    m = sorted(drawn["m"].unique())[1]
    mine, means = drawn[drawn["m"] == m], drawn["mean"].unique()
    order = list(dict.fromkeys(mine["bound"]))
    figure, (panels,) = make_panels(len(means), [1.0], height=1.9)
    for axes, mean in zip(panels, means, strict=True):
        here = mine[mine["mean"] == mean]
        for name, rows in here.groupby("bound", sort=False):
            look: dict[str, Any] = dict(look_of(order, str(name)))
            axes.plot(rows["variance_ratio"], rows["excess"] / mean, label=name, **look)
        axes.set_title(f"mean {mean:g}")
        fit(axes, "x", [*here["variance_ratio"]])
        fit(axes, "y", [*(mine["excess"] / mine["mean"])])
        axes.set_xlabel("variance / mean (1 − mean)")
    label_rows(panels, "excess / mean")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    figure.suptitle(f"Bounds on a mean of m = {m:,} losses, δ' = {mine['delta'].iloc[0]:g}")
    return figure
