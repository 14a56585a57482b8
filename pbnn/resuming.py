"""A training between two epochs as the bytes of a file, from which it goes on bit for bit."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Collection
from typing import Any

import torch
from torch import Generator, Tensor, nn

from pbnn.files import check_schema_version, strict_json
from pbnn.training import FitConfig, Run

SCHEMA_VERSION = 1
"""Of these files."""


def state_of(module: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, also the buffers that a `state_dict` leaves out.

    Examples
    --------
    >>> from pbnn.binarize import EDE
    >>> state_of(EDE())
    {'t': tensor(0.1000)}
    """
    return {k: v.detach() for k, v in (*module.named_parameters(), *module.named_buffers())}


def generators_of(module: nn.Module) -> dict[str, Generator]:
    """The generators that are attributes of a module and its parts, by name.

    Examples
    --------
    >>> module = nn.Identity()
    >>> module.source = torch.Generator()
    >>> list(generators_of(module))
    ['source']
    """
    return {
        f"{name}.{key}".removeprefix("."): value
        for name, part in module.named_modules()
        for key, value in vars(part).items()
        if isinstance(value, Generator)
    }


def run_bytes(
    objective: nn.Module, run: Run, config: FitConfig, points: str, more: dict[str, int]
) -> bytes:
    """What a training is after an epoch, as safetensors.

    Parameters
    ----------
    objective : module
    run : Run
    config : FitConfig
    points : str
        A hash of the points.
    more : dict of str to int
        Other numbers to keep.
    """
    from safetensors.torch import save

    tensors = _tensors(objective, run, config)
    tensors |= {f"generator/{k}": g.get_state() for k, g in _generators(objective, run).items()}
    for place, parameter in enumerate(_parameters(run)):
        state = run.optimiser.state[parameter].items()
        tensors |= {f"optimiser/{place}/{k}": v for k, v in state if v is not None}
    groups = [{k: v for k, v in g.items() if k != "params"} for g in run.optimiser.param_groups]
    header = {
        "schema_version": SCHEMA_VERSION,
        "config": dataclasses.asdict(config),
        "points": points,
        "curve": run.curve,
        "best": run.best,
        "waited_from": run.waited_from,
        "steps": run.schedule.last_epoch,
        "groups": groups,
        "more": more,
        "tensors": sorted(tensors),
    }
    whole = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    content: bytes = save(whole, metadata={"pbnn": json.dumps(header)})
    return content


def restore_run(
    content: bytes,
    where: str,
    objective: nn.Module,
    run: Run,
    config: FitConfig,
    points: str,
    names: Collection[str] = (),
) -> dict[str, int]:
    """Make a training that has just begun what another was by `run_bytes`; returns its `more`.

    Parameters
    ----------
    content : bytes
    where : str
        What to call the file in errors.
    objective, run, config, points
        As for `run_bytes`.
    names : collection of str
        Of what `more` must hold.

    Raises
    ------
    ValueError
        If the bytes are damaged, newer than this code, or of another training.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        length = int.from_bytes(content[:8], "little")  # of safetensors' own header
        header = strict_json(json.loads(content[8 : 8 + length])["__metadata__"]["pbnn"])
        check_schema_version(header["schema_version"], where, "checkpoint", SCHEMA_VERSION)
        for name, mine in (("config", dataclasses.asdict(config)), ("points", points)):
            if json.dumps(header[name], sort_keys=True) != json.dumps(mine, sort_keys=True):
                raise ValueError(f"`{name}` must be {header[name]} to go on, got {mine}")
        _check_header(header, run, config)
        more: dict[str, int] = header["more"]
        if missing := set(names) - set(more):
            raise ValueError(f"`more` must hold {sorted(missing)}")
        saved = load(content)
        if sorted(saved) != header["tensors"]:
            raise ValueError("`tensors` must be those that the header names")
        _put(saved, objective, run, config, header["steps"])
        for group, told in zip(run.optimiser.param_groups, header["groups"], strict=True):
            group |= {k: tuple(v) if isinstance(v, list) else v for k, v in told.items()}
        rates = [group["lr"] for group in run.optimiser.param_groups]
        steps = {"last_epoch": header["steps"], "_step_count": header["steps"] + 1}
        run.schedule.load_state_dict(steps | {"_last_lr": rates})
        run.curve[:] = header["curve"]
        run.best, run.waited_from = header["best"], header["waited_from"]
    except (SafetensorError, LookupError, AttributeError, TypeError, ValueError, RuntimeError) as e:
        raise ValueError(f"{where} is no checkpoint of this training: {e}.") from e
    return more


def _check_header(header: dict[str, Any], run: Run, config: FitConfig) -> None:
    """Refuse numbers of a header that are none, or that do not fit each other."""
    curve, more, steps = header["curve"], header["more"], header["steps"]
    rows = [row for row in curve if isinstance(row, dict) and set(row) == set(curve[0])]
    numbers = [number for row in rows for number in row.values()] + [header["best"]]
    whole = [steps, header["waited_from"], *more.values()]
    if not isinstance(curve, list) or not rows or len(rows) < len(curve):
        raise ValueError("`curve` must be of rows that have the same figures")
    if not all(type(each) is float for each in numbers):
        raise ValueError("`curve` and `best` must be real numbers")
    if [row["epoch"] for row in rows] != list(range(len(rows))):
        raise ValueError("`curve` must have a row for each epoch")
    if not all(type(each) is int for each in whole):
        raise ValueError("`steps`, `waited_from` and `more` must be whole numbers")
    total = getattr(run.schedule, "total_steps", steps)
    if steps * config.epochs != len(rows) * total or not 0 <= header["waited_from"] < len(rows):
        raise ValueError("`steps` and `waited_from` must be those of the epochs of the curve")
    for group, told in zip(run.optimiser.param_groups, header["groups"], strict=True):
        own = {k: list(v) if isinstance(v, tuple) else v for k, v in group.items() if k != "params"}
        kinds = [{k: _kind(v) for k, v in each.items()} for each in (told, own)]
        if kinds[0] != kinds[1]:
            raise ValueError(f"`groups` must be as those of the optimiser, {own}, got {told}")


def _kind(value: Any) -> Any:
    return [_kind(each) for each in value] if isinstance(value, list) else type(value)


@torch.no_grad()
def _put(
    saved: dict[str, Tensor], objective: nn.Module, run: Run, config: FitConfig, steps: int
) -> None:
    tensors = _tensors(objective, run, config)
    if odd := [name for name, value in saved.items() if value.isnan().any()]:
        raise ValueError(f"`tensors` must be numbers, not so in {odd[0]}")
    kept = {name for name in saved if name.startswith(("objective/", "best/"))}
    if kept != set(tensors):
        raise ValueError(f"`objective` must have the same parts, got {sorted(kept ^ set(tensors))}")
    for name, value in tensors.items():
        if saved[name].shape != value.shape or saved[name].dtype != value.dtype:
            raise ValueError(f"`objective` must have the shapes and types saved, not so in {name}")
    for name, value in tensors.items():
        value.copy_(saved[name])
    for name, generator in _generators(objective, run).items():
        generator.set_state(saved[f"generator/{name}"])
    for place, parameter in enumerate(_parameters(run)):
        start = f"optimiser/{place}/"
        state = {k.removeprefix(start): v for k, v in saved.items() if k.startswith(start)}
        for key, value in state.items():
            if key == "step":
                sound = value.shape == () and value.item() == steps
            else:
                sound = (value.shape, value.dtype) == (parameter.shape, parameter.dtype)
            if not sound:
                raise ValueError(f"`optimiser` must fit the parameters and steps, not so {key!r}")
        if state:
            # Laid out in memory like the parameter: kernels round alike only if they run alike.
            run.optimiser.state[parameter] = {
                key: value
                if key == "step"
                else torch.empty_like(parameter, dtype=value.dtype).copy_(value)
                for key, value in state.items()
            }


def _tensors(objective: nn.Module, run: Run, config: FitConfig) -> dict[str, Tensor]:
    """The state now and, where it is kept, the best one, by the names in the file."""
    best = run.best_state if config.keep == "best" else {}
    now = {f"objective/{name}": value for name, value in state_of(objective).items()}
    return now | {f"best/{name}": value for name, value in best.items()}


def _generators(objective: nn.Module, run: Run) -> dict[str, Generator]:
    """Those of the objective, and that of the order of the points."""
    return {"": run.generator, **generators_of(objective)}


def _parameters(run: Run) -> list[Any]:
    return [parameter for group in run.optimiser.param_groups for parameter in group["params"]]
