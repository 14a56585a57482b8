"""Any torch module with independent Gaussian weights around its own, and a prior of that kind."""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from pbnn.networks.checks import is_real
from pbnn.posteriors import DiagonalGaussianPosterior

Deviation = float | Tensor | Mapping[str, float | Tensor]
"""One for all random parameters, or one a parameter by its name: a number, or one a weight."""


class RandomisedModule(nn.Module):
    r"""A module whose weights are drawn around its own, beside a prior around those of another.

    .. math::
        w_i \sim \mathcal N(\hat w_i, \sigma_i^2), \qquad
        P = \prod_i \mathcal N(w_{0,i}, \sigma_{0,i}^2)

    It works on a copy in evaluation mode; `model` is left as it is. Weights are drawn in float64
    and rounded to the type of the module, which no divergence grows by. What is not random must be
    the prior's, number by number, since no divergence pays for it.

    Parameters
    ----------
    model : module
        The mean of the posterior, on the device where everything is computed.
    prior : module or mapping of str to Tensor
        The mean :math:`w_0` of the prior, a module like `model` or its `state_dict`: a copy, as
        training moves the numbers of a `state_dict` along, or `model` itself. It, the architecture,
        :math:`\sigma_0` and `layers` must not depend on the points that a certificate is computed
        on. Buffers that are in no `state_dict` are compared if it is a module.
    deviation : float, Tensor or mapping of str to float or Tensor
        :math:`\sigma`, positive: one for all, or for each random parameter by name.
    prior_deviation : float, Tensor or mapping of str to float or Tensor
        :math:`\sigma_0`, likewise.
    layers : {"all", "last"} or sequence of str
        Which parameters are random: all, those of the module with parameters that was registered
        last, or those of these names, of parameters or of modules that have them.
    frozen_on : str, optional
        Hash of the split that the running statistics of normalisations come from, where there are
        any.

    Attributes
    ----------
    names : tuple of str
        Of the random parameters.
    statistics : frozenset of str
        `frozen_on`, if there are running statistics.

    Raises
    ------
    ValueError
        If an argument is outside its domain; if `prior` is of another architecture, shares memory
        with the random weights of `model`, or differs from it in what is not random; if running
        statistics have no `frozen_on`, or a normalisation has none and takes those of the batch.

    Examples
    --------
    >>> model, prior = torch.nn.Linear(2, 3), torch.nn.Linear(2, 3)
    >>> network = RandomisedModule(model, prior, 0.1, 0.1, layers=["weight"])
    Traceback (most recent call last):
    ...
    ValueError: `model` must have the prior's numbers where it is not random, got others in 'bias'.
    >>> network = RandomisedModule(model, prior, 0.1, 0.1)
    >>> network.names, network.sample(torch.ones(4, 2), torch.Generator()).shape
    (('weight', 'bias'), torch.Size([4, 3]))
    """

    def __init__(
        self,
        model: nn.Module,
        prior: nn.Module | Mapping[str, Tensor],
        deviation: Deviation,
        prior_deviation: Deviation,
        layers: str | Sequence[str] = "all",
        frozen_on: str | None = None,
    ) -> None:
        super().__init__()
        means = _state_of_prior(model, prior)
        self.statistics = origins(model, frozen_on)
        own = dict(model.named_parameters())
        self.names = random_names(model, layers)
        _check_apart(model, prior, means, self.names)
        # A module has buffers that its `state_dict` leaves out, too.
        buffers = dict(prior.named_buffers()) if isinstance(prior, nn.Module) else {}
        _check_fixed(model, buffers | means, self.names)
        own_deviations = _deviations("deviation", deviation, own, self.names)
        prior_deviations = _deviations("prior_deviation", prior_deviation, own, self.names)
        self.weights = nn.ModuleList()
        for name, mine, theirs in zip(self.names, own_deviations, prior_deviations, strict=True):
            pair = means[name].to(own[name].device), own[name]
            self.weights.append(_posterior(name, *pair, mine, theirs))
        # In a tuple it is no part of this module: its weights are not counted twice.
        self._template = (still(model),)
        self.config = {
            "model": _text(model),
            "random": self.names,
            "fixed": _digest(model, self.names),
        }

    @property
    def device(self) -> torch.device:
        """Where weights are drawn and scores computed."""
        return next(self.weights.parameters()).device

    def posteriors(self) -> Iterator[DiagonalGaussianPosterior]:
        """Of the random parameters, in the order of `names`, each flat."""
        return (cast(DiagonalGaussianPosterior, weight) for weight in self.weights)

    @torch.no_grad()
    def draw(self, generator: torch.Generator) -> list[Tensor]:
        """One draw of the weights in float64, flat, in the order of `names`."""
        return [posterior.sample(generator) for posterior in self.posteriors()]

    @torch.no_grad()
    def scores(self, x: Tensor, weights: Sequence[Tensor]) -> Tensor:
        """What the module answers with these weights."""
        return cast(Tensor, functional_call(self._template[0], self._shaped(weights), (x,)))

    def sample(self, x: Tensor, generator: torch.Generator) -> Tensor:
        """What the module answers under one draw of the weights."""
        return self.scores(x, self.draw(generator))

    def mode(self, x: Tensor) -> Tensor:
        """What the module answers with the mean weights, which are those it was made with."""
        return self.scores(x, [posterior.mode() for posterior in self.posteriors()])

    def known(self, weights: Sequence[Tensor]) -> nn.Module:
        """One deterministic module of these weights: the network that is deployed."""
        module = copy.deepcopy(self._template[0])
        parameters = dict(module.named_parameters())
        for name, weight in self._shaped(weights).items():
            parameters[name].data.copy_(weight)
        return module

    def _shaped(self, weights: Sequence[Tensor]) -> dict[str, Tensor]:
        like = dict(self._template[0].named_parameters())
        pairs = zip(self.names, weights, strict=True)
        return {name: w.detach().to(like[name].dtype).view_as(like[name]) for name, w in pairs}


def module_fingerprint(model: nn.Module) -> str:
    """SHA-256 of how a module prints itself and of all its numbers in float64.

    Examples
    --------
    >>> module_fingerprint(torch.nn.ReLU()) == module_fingerprint(torch.nn.Tanh())
    False
    """
    return hashlib.sha256(f"{_text(model)} {_digest(model, ())}".encode()).hexdigest()


def random_names(model: nn.Module, layers: str | Sequence[str]) -> tuple[str, ...]:
    """Names of the parameters that `layers` of `RandomisedModule` makes random.

    Examples
    --------
    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))
    >>> random_names(model, "last"), random_names(model, ["0", "2.bias"])
    (('2.weight', '2.bias'), ('0.weight', '0.bias', '2.bias'))
    """
    every = dict(model.named_parameters())
    if isinstance(layers, str):
        if layers not in ("all", "last"):
            raise ValueError(f'`layers` must be "all", "last" or names, got {layers!r}.')
        wanted = [""]
        if layers == "last":
            has_some = [name for name, part in model.named_modules() if _has_own(part)]
            wanted = has_some[-1:]
    else:
        wanted = list(layers)
    found = {w: [n for n in every if w in ("", n) or n.startswith(f"{w}.")] for w in wanted}
    if odd := [want for want, names in found.items() if not names]:
        raise ValueError(f"`layers` must name parameters of `model`, got {odd[0]!r}.")
    chosen = {name for names in found.values() for name in names}
    if not chosen:
        raise ValueError("`layers` must name at least one parameter, got none.")
    if odd := [name for name in chosen if not every[name].is_floating_point()]:
        raise ValueError(f"`layers` must name real parameters, got {odd[0]!r}.")
    return tuple(name for name in every if name in chosen)


def origins(model: nn.Module, frozen_on: str | None) -> frozenset[str]:
    """The split that running statistics come from, if a module has any.

    Raises
    ------
    ValueError
        If they have none, or a normalisation keeps none and would take those of the batch.
    """
    normalisations = [part for part in model.modules() if hasattr(part, "running_mean")]
    of_batches = [
        part
        for part in normalisations
        if part.running_mean is None and isinstance(part, nn.modules.batchnorm._BatchNorm)
    ]
    if of_batches:
        raise ValueError(
            "`model` must have running statistics: a normalisation by those of the batch lets a "
            f"prediction depend on other points, got {of_batches[0]}."
        )
    if all(part.running_mean is None for part in normalisations):
        return frozenset()
    if frozen_on is None:
        raise ValueError(
            "`frozen_on` must be the hash of the split that running statistics come from, prior or "
            "feature split, as no divergence pays for them, got None."
        )
    return frozenset({frozen_on})


def still(model: nn.Module) -> nn.Module:
    """A copy in evaluation mode, of which nothing trains."""
    template = copy.deepcopy(model).eval().requires_grad_(False)
    if odd := [name for name, part in template.named_modules() if part.training]:
        raise ValueError(f"`model` must obey `eval()`, got {odd[0]!r} in training mode.")
    return template


def _has_own(module: nn.Module) -> bool:
    return next(module.parameters(recurse=False), None) is not None


def _text(model: nn.Module) -> str:
    """How a module is made, as far as it prints itself; no addresses."""
    return re.sub(r" at 0x[0-9a-f]+", "", f"{type(model).__qualname__} {model!r}")


def _state(model: nn.Module) -> dict[str, Tensor]:
    return {name: v.detach() for name, v in model.state_dict().items() if isinstance(v, Tensor)}


def _state_of_prior(model: nn.Module, prior: nn.Module | Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The prior's numbers by name; refused if they are not of a module like `model`."""
    own = _state(model)
    if isinstance(prior, nn.Module):
        if _text(prior) != _text(model):
            raise ValueError(
                "`prior` must be of the architecture of `model`, got another "
                f"{type(prior).__name__}."
            )
        theirs = _state(prior)
    else:
        theirs = {name: v.detach() for name, v in prior.items() if isinstance(v, Tensor)}
    if odd := sorted(set(own) ^ set(theirs)):
        raise ValueError(f"`prior` must have the names of `model`, got a difference in {odd[0]!r}.")
    for name, value in own.items():
        if value.shape != theirs[name].shape:
            raise ValueError(
                f"`prior` must have the shapes of `model`, got {tuple(theirs[name].shape)} of "
                f"{name!r}, not {tuple(value.shape)}."
            )
    return theirs


def _fixed(model: nn.Module, names: Sequence[str]) -> dict[str, Tensor]:
    """What is not random, with buffers that no `state_dict` has."""
    left = {name: p.detach() for name, p in model.named_parameters() if name not in names}
    return left | dict(model.named_buffers())


def _check_apart(
    model: nn.Module,
    prior: nn.Module | Mapping[str, Tensor],
    means: Mapping[str, Tensor],
    names: Sequence[str],
) -> None:
    """Refuse a prior that training `model` has moved along: of it there would be no divergence."""
    own = dict(model.named_parameters())
    shared = [n for n in names if own[n].numel() and own[n].data_ptr() == means[n].data_ptr()]
    if shared and prior is not model:
        raise ValueError(
            "`prior` must be a copy, made before `model` was trained, got the very memory of "
            f"{shared[0]!r}: `copy.deepcopy` of a module or of its `state_dict`."
        )


def _check_fixed(model: nn.Module, prior: Mapping[str, Tensor], names: Sequence[str]) -> None:
    for name, value in _fixed(model, names).items():
        if name in prior and not torch.equal(value, prior[name].to(value.device)):
            raise ValueError(
                "`model` must have the prior's numbers where it is not random, got others in "
                f"{name!r}."
            )


def _digest(model: nn.Module, names: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(_fixed(model, names).items()):
        number = value.detach().cpu()
        widest = torch.complex128 if number.is_complex() else torch.float64
        digest.update(name.encode() + number.to(widest).numpy().tobytes())
    return digest.hexdigest()


def _deviations(
    argument: str, given: Deviation, own: Mapping[str, Tensor], names: Sequence[str]
) -> list[Tensor]:
    """Logarithms in float64, one or as many as weights, in the order of `names`."""
    if isinstance(given, Mapping):
        if odd := sorted(set(given) ^ set(names)):
            raise ValueError(
                f"`{argument}` must name all that is random, got a difference in {odd[0]!r}."
            )
        each = [given[name] for name in names]
    else:
        each = [given] * len(names)
    found = []
    for name, value in zip(names, each, strict=True):
        if not isinstance(value, Tensor):
            if not is_real(value, 0):
                raise ValueError(f"`{argument}` must be a positive number, got {value}.")
            value = torch.tensor(float(value), dtype=torch.float64)
        value = value.detach().double()
        if not bool(((value > 0) & (value < torch.inf)).all()):
            raise ValueError(f"`{argument}` must be positive and finite, got {value.min().item()}.")
        if value.numel() > 1 and value.shape != own[name].shape:
            raise ValueError(
                f"`{argument}` must have one number or the shape of {name!r}, "
                f"{tuple(own[name].shape)}, got {tuple(value.shape)}."
            )
        found.append(value.log().reshape(-1, 1).to(own[name].device))
    return found


def _posterior(
    name: str, prior: Tensor, mean: Tensor, deviation: Tensor, prior_deviation: Tensor
) -> DiagonalGaussianPosterior:
    """Posterior and prior of one parameter, as a column of float64."""
    for whose, value in (("model", mean), ("prior", prior)):
        if not bool(torch.isfinite(value).all()):
            raise ValueError(f"`{whose}` must have finite weights, got others in {name!r}.")
    column = prior.detach().double().reshape(-1, 1)
    shared = max(deviation.numel(), prior_deviation.numel()) == 1
    made = DiagonalGaussianPosterior(column, shared=shared)
    made.mean.data.copy_(mean.detach().double().reshape(-1, 1))
    made.log_deviation.data.copy_(deviation.expand_as(made.log_deviation))
    made.prior_log_deviation.copy_(prior_deviation.expand_as(made.prior_log_deviation))
    return made
