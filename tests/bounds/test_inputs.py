"""What goes in: kinds, shapes, and refusals that name the argument."""

from __future__ import annotations

import math
import subprocess
import sys

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


def test_importing_a_bound_imports_nothing_heavy():
    heavy = ("torch", "sklearn", "pandas", "matplotlib", "scipy")
    code = (
        "import sys; from pbnn.bounds import catoni, maurer; catoni(0.1, 1.0, 10, C=1.0);"
        "maurer(0.1, 1.0, 10);"
        f"print([name for name in {heavy} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
