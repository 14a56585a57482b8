"""What goes in: kinds, shapes, and refusals that name the argument."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest
import torch

import pbnn.bounds as pb

BOUNDS = [pb.catoni, pb.maurer, pb.mcallester, pb.quadratic, pb.thiemann, pb.first_order]
CALLS = [
    (pb.binary_kl, (0.2, 0.3)),
    (pb.kl_inverse, (0.2, 0.3)),
    (pb.catoni_optimal_c, (0.2, 3.0, 100)),
    (pb.tandem, (0.02, 3.0, 100)),
    (pb.clopper_pearson, (20, 100)),
    (pb.monte_carlo, (0.2, 100)),
    (pb.derandomised, (0.3, 0.1, 0.5)),
    *((bound, (0.2, 3.0, 100)) for bound in BOUNDS),
]
GOOD = {"risk": 0.2, "kl": 3.0, "n": 100, "delta": 0.05}


@pytest.mark.parametrize(
    ("name", "value", "domain"),
    [
        ("risk", 1.3, r"must lie in \[0, 1\], got 1.3"),
        ("risk", -1e-9, r"must lie in \[0, 1\], got -1e-09"),
        ("risk", math.nan, r"must lie in \[0, 1\], got nan"),
        ("kl", -0.1, "must be non-negative, got -0.1"),
        ("kl", math.nan, "must be non-negative, got nan"),
        ("n", 0, "must be a whole number, at least 1, got 0.0"),
        ("n", 10.5, "must be a whole number, at least 1, got 10.5"),
        ("n", math.inf, "must be a whole number, at least 1, got inf"),
        ("n", math.nan, "must be a whole number, at least 1, got nan"),
        ("delta", 0.0, r"must lie in \(0, 1\), got 0.0"),
        ("delta", 1.0, r"must lie in \(0, 1\), got 1.0"),
        ("delta", 1.3, r"must lie in \(0, 1\), got 1.3"),
        ("delta", math.nan, r"must lie in \(0, 1\), got nan"),
    ],
)
@pytest.mark.parametrize("kind", [float, np.array, torch.tensor])
@pytest.mark.parametrize("bound", BOUNDS)
def test_a_value_outside_its_domain_is_named(bound, kind, name, value, domain):
    arguments = GOOD | {name: value}
    if kind is not float:
        arguments[name] = kind([GOOD[name], value], dtype={np.array: "f8"}.get(kind, torch.float64))
    with pytest.raises(ValueError, match=f"`{name}` {domain}"):
        bound(**arguments)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pb.catoni(0.1, 1.0, 10, C=0.0), r"`C` must lie in \(0, inf\), got 0.0"),
        (lambda: pb.catoni(0.1, 1.0, 10, C=math.inf), r"`C` must lie in \(0, inf\), got inf"),
        (lambda: pb.catoni(0.1, 1.0, 10, fixed=True), "`C` must be given when `fixed` is true"),
        (lambda: pb.thiemann(0.1, 1.0, 10, lam=2.0), r"`lam` must lie in \(0, 2\), got 2.0"),
        (lambda: pb.thiemann(0.1, 1.0, 10, lam=0.0), r"`lam` must lie in \(0, 2\), got 0.0"),
        (lambda: pb.tandem(1.1, 1.0, 10), r"`tandem_loss` must lie in \[0, 1\], got 1.1"),
        (lambda: pb.derandomised(1.1), r"`gibbs_bound` must lie in \[0, 1\], got 1.1"),
        (lambda: pb.derandomised(0.1, -0.1), r"`lower_right` must lie in \[0, 1\], got -0.1"),
        (lambda: pb.kl_inverse(1.1, 0.1), r"`q` must lie in \[0, 1\], got 1.1"),
        (lambda: pb.kl_inverse(0.1, -0.1), "`c` must be non-negative, got -0.1"),
        (lambda: pb.kl_inverse(0.1, 0.1, "both"), "`side` must be .*, got 'both'"),
        (lambda: pb.binary_kl(0.1, math.nan), r"`p` must lie in \[0, 1\], got nan"),
        (lambda: pb.clopper_pearson(1, 5, side="both"), "`side` must be .*, got 'both'"),
        (lambda: pb.clopper_pearson(6, 5), "`errors` must not exceed `n`, got 6.0"),
        (lambda: pb.clopper_pearson(-1, 5), "`errors` must be a whole number, at least 0"),
        (lambda: pb.clopper_pearson(1.5, 5), "`errors` must be a whole number, at least 0"),
        (lambda: pb.clopper_pearson(math.nan, 5), "`errors` must be a whole number, at least 0"),
        (lambda: pb.monte_carlo(0.1, 0), "`draws` must be a whole number, at least 1, got 0.0"),
        (lambda: pb.maurer(0.1, 1.0, 10**400), "`n` must be below"),
    ],
)
def test_other_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("value", ["0.1", None, [0.1], True, 1j, np.array(["a"]), np.array([True])])
def test_what_is_no_real_number_is_a_type_error(value):
    with pytest.raises(TypeError, match="`risk` must"):
        pb.maurer(value, 1.0, 10)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.bool])
def test_what_is_no_real_tensor_is_a_type_error(dtype):
    with pytest.raises(TypeError, match="`risk` must hold real numbers, got torch"):
        pb.maurer(torch.ones(2, dtype=dtype), 1.0, 10)


def test_arrays_do_not_meet_tensors():
    with pytest.raises(TypeError, match="`kl` is a NumPy array among torch tensors"):
        pb.maurer(torch.tensor(0.1), np.array([1.0]), 10)
    # A NumPy scalar is a number like any other.
    assert isinstance(pb.maurer(torch.tensor(0.1), np.float64(1.0), 10), torch.Tensor)


@pytest.mark.parametrize(("function", "arguments"), CALLS)
def test_the_kind_that_comes_in_goes_out(function, arguments):
    value = function(*arguments)
    assert type(value) is float
    array = function(*(np.array([a, a]) for a in arguments))
    assert isinstance(array, np.ndarray)
    assert array.dtype == np.float64
    np.testing.assert_allclose(array, value, rtol=1e-14)
    assert isinstance(function(*map(np.float64, arguments)), np.float64)
    tensor = function(*(torch.tensor([a, a], dtype=torch.float64) for a in arguments))
    assert tensor.dtype == torch.float64
    np.testing.assert_allclose(tensor.numpy(), value, rtol=1e-14)


@pytest.mark.parametrize(("function", "arguments"), CALLS)
def test_tensors_come_back_in_their_dtype_and_are_computed_in_float64(function, arguments):
    first, *rest = arguments
    single = torch.tensor([first], dtype=torch.float32)
    got = function(single, *rest)
    assert got.dtype == torch.float32
    assert got.item() == np.float32(function(single.item(), *rest))
    mixed = function(single, *(torch.tensor(r, dtype=torch.float64) for r in rest))
    assert mixed.dtype == torch.float64


def test_whole_tensors_come_back_in_the_default_dtype():
    assert pb.clopper_pearson(torch.tensor(3), torch.tensor(10)).dtype == torch.float32


@pytest.mark.parametrize(("function", "arguments"), CALLS)
def test_arguments_broadcast(function, arguments):
    first, second, *rest = arguments
    column = np.array([[first], [first], [first]])
    row = np.array([second, second])
    value = function(*arguments)
    assert function(column, row, *rest).shape == (3, 2)
    np.testing.assert_allclose(function(column, row, *rest), value, rtol=1e-14)
    tensor = function(torch.tensor(column), torch.tensor(row), *rest)
    assert tensor.shape == (3, 2)
    assert function(column[:0], row[:0], *rest).shape == (0, 0)


def test_outward_tensors_stay_float64_and_carry_no_gradient():
    risk = torch.tensor([0.1], requires_grad=True)
    for function in (pb.maurer, pb.mcallester, pb.catoni, pb.first_order, pb.tandem):
        bound = function(risk, 3.0, 100, certify=True)
        assert bound.dtype == torch.float64
        assert not bound.requires_grad
        assert bound.item() == function(risk.item(), 3.0, 100, certify=True)
    assert pb.clopper_pearson(torch.tensor([3.0]), 10, certify=True).dtype == torch.float64
    assert not pb.derandomised(risk, risk / 2, certify=True).requires_grad


def test_tensors_that_require_gradients_are_not_checked():
    risk = torch.tensor([1.5], requires_grad=True)
    pb.mcallester(risk, 1.0, 10)
    with pytest.raises(ValueError, match="`risk`"):
        pb.mcallester(risk.detach(), 1.0, 10)
    # The other arguments still are.
    with pytest.raises(ValueError, match="`delta`"):
        pb.mcallester(risk, 1.0, 10, delta=2.0)


NAMES = sorted(pb.CATALOGUE)

NAN, INF = math.nan, math.inf
PROBABILITY = (r"must lie in \[0, 1\]", (-1e-9, 1 + 1e-9, NAN, INF, -INF))
COST = ("must be non-negative", (-1e-300, NAN, -INF))
FINITE_COST = (r"must lie in \[0, inf\)", (-1e-300, NAN, INF, -INF))
WHOLE = ("must be a whole number, at least 1", (0, -1, 1.5, NAN, INF, -INF))
PAIRS = ("must be a whole number, at least 2", (1, 0, -1, 2.5, NAN, INF, -INF))
SHARE = (r"must lie in \(0, 1\)", (0.0, 1.0, -0.1, 1.1, NAN, INF, -INF))
POSITIVE = (r"must lie in \(0, inf\)", (0.0, -1.0, NAN, INF, -INF))
ABOVE_ONE = (r"must lie in \(1, inf\)", (1.0, 0.5, NAN, INF, -INF))
FINITE = ("must be finite", (NAN, INF, -INF))
WEIGHT = (r"must lie in \(0, 1\]", (0.0, 1.1, NAN, INF, -INF))
COUNTED = ("must be a whole number, at least 0", (-1, 1.5, NAN, INF, -INF))
REFUSED = {
    **dict.fromkeys(("risk", "tandem_loss", "disagreement_rate", "frequency"), PROBABILITY),
    **dict.fromkeys(("gibbs_bound", "lower_right", "lower_wrong", "losses"), PROBABILITY),
    **dict.fromkeys(("kl", "divergence", "nats", "c"), COST),
    **dict.fromkeys(("variance", "second_moment"), FINITE_COST),
    **dict.fromkeys(("n", "n_pairs", "draws", "steps"), WHOLE),
    **dict.fromkeys(("delta", "delta_mc"), SHARE),
    **dict.fromkeys(("C", "lam", "s2", "sizes"), POSITIVE),
    **dict.fromkeys(("alpha", "c1", "c2", "gamma"), ABOVE_ONE),
    **dict.fromkeys(("loss", "a", "b", "mu", "values"), FINITE),
    **dict.fromkeys(("plus", "minus"), COST),
    "log_ratio": ("must be above -inf", (NAN, -INF)),
    "errors": COUNTED,
}
REFUSED_BY_ONE = {
    ("thiemann", "lam"): (r"must lie in \(0, 2\)", (0.0, 2.0, -1.0, NAN, INF, -INF)),
    ("catoni_union", "lam"): ABOVE_ONE,
    ("recursive_excess", "gamma"): WEIGHT,
    ("recursive", "gamma"): WEIGHT,
    ("unexpected_bernstein", "b"): POSITIVE,
    ("empirical_bernstein", "n"): PAIRS,
    ("maurer_pontil", "n"): PAIRS,
    ("monte_carlo_batches", "errors"): COST,
    ("vector_kl", "types"): ("must be at least 2", (1, 0, -1)),
}


def refused(name, argument):
    """What a number must be, and values that it must not have."""
    argument = argument.partition("[")[0]
    return REFUSED_BY_ONE.get((name, argument)) or REFUSED[argument]


def with_bad(good, bad, kind):
    """`bad` among good values, or alone where one number is asked for."""
    if kind is float:
        return [*good[:-1], bad] if isinstance(good, list) else bad
    good, shape = np.array(good, dtype=float), np.shape(good)
    both = np.stack([good, good])
    both[(1, *(-1 for _ in shape))] = bad
    return both if kind is np.array else torch.tensor(both)


def test_every_bound_has_an_example(calls):
    assert set(calls) == set(pb.CATALOGUE)
    for name, call in calls.items():
        told = set(call.arguments)
        options = {"constant", "side", "tight", "fixed"}
        assert told == set(pb.CATALOGUE[name].inputs) - options, name
        assert 0 < call() < 1


@pytest.mark.parametrize("kind", [float, np.array, torch.tensor])
@pytest.mark.parametrize("name", NAMES)
def test_every_number_outside_its_domain_is_refused_by_name(name, kind, call):
    series = {a: x for a, x in call.numbers.items() if isinstance(x, list)}
    others = {a: torch.tensor(x) for a, x in series.items() if kind is torch.tensor}
    for argument, good in call.numbers.items():
        if kind is not float and argument in call.one_number:
            continue
        domain, values = refused(name, argument)
        for value in values:
            told = repr(value if argument == "types" else float(value))
            message = f"^`{re.escape(argument)}` {domain}, got {re.escape(told)}.$"
            with pytest.raises(ValueError, match=message):
                call(others | {argument: with_bad(good, value, kind)})


def test_infinitely_many_errors_are_refused_without_a_warning(calls):
    with pytest.raises(ValueError, match=r"`errors` must .* got inf"):
        calls["monte_carlo_batches"]({"errors": [3.0, 8.0, INF]})


def test_a_list_among_tensors_is_a_list(calls):
    call = calls["monte_carlo_batches"]
    assert call({"errors": torch.tensor(call.arguments["errors"])}).item() > 0


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_option_is_refused_by_name(name, call):
    for option in {"constant", "side"} & set(pb.CATALOGUE[name].inputs):
        # They have a constant of their own, or none.
        if name not in ("maurer_xi", "anytime", "seeger", "catoni_fixed"):
            with pytest.raises(ValueError, match=f"`{option}` must be .*, got 'other'"):
                call(**{option: "other"})


def test_arguments_that_do_not_fit_each_other_are_refused(calls):
    for name, changes, message in (
        ("sub_gamma", {"c": 400 / 90}, r"`c \* lam / n` must be below 1, got 1.0"),
        ("sub_gamma", {"c": INF}, r"`c \* lam / n` must be below 1, got inf"),
        ("split_kl", {"plus": 1.5}, "`plus` must be at most `b - mu`, got 1.5"),
        ("split_kl", {"plus": INF}, "`plus` must be at most `b - mu`, got inf"),
        ("split_kl", {"minus": 1.2}, "`minus` must be at most `mu - a`, got 1.2"),
        ("split_kl", {"mu": -1.1}, "`mu` must be at least `a`, got -1.1"),
        ("split_kl", {"mu": 1.6}, "`mu` must be at most `b`, got 1.6"),
        ("split_kl_discrete", {"values[1]": -0.2}, r"`values\[1\]` must exceed .* got -0.2"),
        ("split_kl_discrete", {"frequency[1]": 0.6}, r"`frequency\[1\]` must not exceed .* 0.6"),
        ("recursive_excess", {"frequency[2]": 0.2}, r"`frequency\[2\]` must not exceed .* 0.2"),
        ("recursive", {"frequency[1][1]": 1.0}, r"`frequency\[1\]\[1\]` must not exceed .* 1.0"),
        ("recursive_excess", {"frequency": (0.9, 0.1)}, "`gamma` must be 1 with two levels"),
        ("unexpected_bernstein", {"loss": 1.6}, "`loss` must be at most `b`, got 1.6"),
        ("clopper_pearson", {"errors": 401}, "`errors` must not exceed `n`, got 401.0"),
        ("chernoff", {"errors": 401}, "`errors` must not exceed `n`, got 401.0"),
        ("monte_carlo_batches", {"errors": [3.0, 8.0, 91.0]}, "`errors` must not exceed .* 91.0"),
        ("c_bound_joint", {"tandem_loss": 0.9}, "`disagreement_rate` must be at most .* got 0.12"),
        ("derandomised", {"lower_right": 0.4}, "`lower_right` must be below .*, got 0.4"),
    ):
        with pytest.raises(ValueError, match=message):
            calls[name](changes)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_not_a_number_is_a_type_error_by_name(name, call):
    optional = ("C", "n_pairs", "lam" if name == "thiemann" else "", "gamma")
    for argument in call.numbers:
        bad = ["0.1", True, 1j, {}, np.array(["a"]), np.array([True]), torch.tensor([True])]
        for value in bad if argument in optional else [*bad, None]:
            with pytest.raises(TypeError, match=f"^`{re.escape(argument)}` must"):
                call({argument: value})


@pytest.mark.parametrize("name", NAMES)
def test_shapes_that_do_not_broadcast_are_refused(name, call):
    arguments = [a for a in call.numbers if a not in call.one_number]
    for one, other in pairwise(arguments):
        for kind in (np.asarray, torch.tensor):
            pair = {a: kind(filled(call.numbers[a], k)) for a, k in ((one, (2,)), (other, (3,)))}
            with pytest.raises(ValueError, match=r"^Shapes must broadcast, got ") as error:
                call(pair)
            assert f"`{one}` (2," in str(error.value)
            assert f"`{other}` (3," in str(error.value)


@pytest.mark.parametrize("name", NAMES)
def test_no_bound_takes_arrays_and_tensors_together(name, call):
    arguments = [a for a in call.numbers if a not in call.one_number]
    for one, other in pairwise(arguments):
        mixed = {one: np.array(filled(call.numbers[one], (1,)))}
        mixed[other] = torch.tensor(filled(call.numbers[other], (1,)))
        with pytest.raises(TypeError, match=f"^`{re.escape(one)}` is a NumPy array among torch"):
            call(mixed)


def filled(value, shape):
    """Equal numbers in an array of this shape; a series stays along the last axis."""
    return np.broadcast_to(np.array(value, dtype=float), shape + np.shape(value)).copy()


ALWAYS_DOUBLE = ("betting", "c_bound_joint")  # rounded up, so float32 could round them back


@pytest.mark.parametrize("name", NAMES)
def test_the_kind_that_comes_in_goes_out_of_every_bound(name, call):
    value = call()
    assert type(value) is float
    array = call.each(lambda x: filled(x, (2,)))
    assert isinstance(array, np.ndarray)
    assert array.dtype == np.float64
    np.testing.assert_allclose(array, [value] * 2, rtol=1e-13)
    if not any(isinstance(x, list) for x in call.numbers.values()):
        scalar = call.each(np.float64)
        assert isinstance(scalar, np.float64)
        assert scalar == value
        whole = {a: int(x) for a, x in call.numbers.items() if x == int(x)}
        assert call(whole) == value
    tensor = call.each(lambda x: torch.tensor(filled(x, (2,))))
    assert tensor.dtype == torch.float64
    np.testing.assert_allclose(tensor.numpy(), [value] * 2, rtol=1e-13)


@pytest.mark.parametrize("name", NAMES)
def test_single_precision_in_is_double_inside_and_single_out(name, call):
    narrow = call.each(lambda x: torch.tensor(filled(x, (2,)), dtype=torch.float32))
    wide = call.each(lambda x: torch.tensor(filled(x, (2,)), dtype=torch.float32).double())
    if name in ALWAYS_DOUBLE:
        assert narrow.dtype == torch.float64
    else:
        assert narrow.dtype == torch.float32
        wide = wide.float()
    assert narrow.tolist() == wide.tolist()
    # NumPy knows no such promise: its bounds are float64.
    array = call.each(lambda x: filled(x, (2,)).astype(np.float32))
    assert array.dtype == np.float64


@pytest.mark.parametrize("name", NAMES)
def test_the_arguments_of_every_bound_broadcast(name, call):
    value = call()
    arguments = [a for a in call.numbers if a not in call.one_number]
    for one, other in zip(arguments, [*arguments[1:], arguments[0]], strict=True):
        for size in (3, 0):
            shapes = {other: (2,), one: (size, 1)}
            expected = (size, 2) if one != other else (size, 1)
            for kind in (np.asarray, torch.tensor):
                found = call({a: kind(filled(call.numbers[a], s)) for a, s in shapes.items()})
                assert tuple(found.shape) == expected
                np.testing.assert_allclose(np.asarray(found), value, rtol=1e-13)


@pytest.mark.parametrize("name", NAMES)
def test_a_probability_that_misses_its_ends_by_rounding_is_moved_there(name, call):
    for argument in {"risk", "disagreement_rate", "gibbs_bound"} & set(call.numbers):
        ends = ((0.0, -1e-13), (1.0, 1 + 1e-13))
        for end, near in ends if argument != "disagreement_rate" else ends[:1]:
            if name != "derandomised" or end:
                assert call({argument: near}) == call({argument: end})


@pytest.mark.parametrize("name", NAMES)
def test_an_infinite_divergence_is_vacuous_and_no_nan(name, call):
    largest = {"vector_kl": INF, "unexpected_bernstein": 1.5, "split_kl": 1.5}.get(name, 1.0)
    prices = {"kl", "divergence", "nats", "log_ratio"}
    # Only the last step of a recursion has the last word.
    for argument in (a for a in call.numbers if a.replace("[1]", "") in prices):
        assert call({argument: INF}) == pytest.approx(largest, rel=1e-15)
        tensor = call({argument: torch.tensor([INF], dtype=torch.float64)})
        assert tensor.item() == pytest.approx(largest, rel=1e-15)


def test_importing_a_bound_imports_nothing_heavy():
    heavy = ("torch", "sklearn", "pandas", "matplotlib", "scipy")
    code = (
        "import sys; from pbnn.bounds import catoni, maurer; catoni(0.1, 1.0, 10, C=1.0);"
        "maurer(0.1, 1.0, 10);"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_what_is_next_to_a_whole_number_is_none(calls):
    for name in ("clopper_pearson", "chernoff"):
        for errors in (5e-324, 1e-17, 0.5):
            with pytest.raises(ValueError, match="`errors` must be a whole number, at least 0"):
                calls[name]({"errors": errors})
        assert 0 < calls[name]({"errors": 0}) < 1


@pytest.mark.parametrize("name", NAMES)
def test_no_number_of_examples_makes_a_bound_no_number(name, call):
    for argument in {"n", "n_pairs", "draws"} & set(call.numbers):
        assert 0 <= call({argument: 2.0**499}) <= 2
        with pytest.raises(ValueError, match=f"`{argument}` must be a whole number"):
            call({argument: 1e308})


def test_very_many_types_are_refused_and_not_summed_up(calls):
    for types in (2**16 + 1, 10**30):
        with pytest.raises(ValueError, match="`types` must be at most 65536"):
            calls["vector_kl"]({"types": types})


@pytest.mark.parametrize(
    ("name", "series"), [("betting", "losses"), ("monte_carlo_batches", "errors")]
)
def test_true_and_false_among_numbers_are_none(calls, name, series):
    call = calls[name]
    with pytest.raises(TypeError, match=f"`{series}` must hold real numbers"):
        call({series: [*call.arguments[series][:-1], True]})
