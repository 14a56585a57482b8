"""Packed networks as ONNX models, for runtimes that know nothing of bits."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from pbnn.files import write_atomic
from pbnn.packed.backends import EXACT
from pbnn.packed.bits import Array
from pbnn.packed.layers import PIXEL, BitLayer, Layer, RealLayer, Scores, Thresholds
from pbnn.packed.network import PackedNetwork

OPSET, IR = 17, 8
"""Versions of the operators and of the format, which go together."""


def to_onnx(
    network: PackedNetwork, path: str | os.PathLike[str], *, member: int | None = None
) -> None:
    r"""Write a packed network as an ONNX model, atomically, that computes what it computes.

    Weights are float32 tensors of −1, 0 and +1 here, 32 times their bits. The model has the input
    "x" (n, channels, height, width), of bytes where the network reads such, else of float32 or
    float64; where it reads signs those of float32. Its outputs are "scores" (n, classes), or
    (n, classes, rows, columns) where there are several places, and "label", of int64: the first
    class of the highest score, or −1 and +1 of a single one. What is no finite number is not
    refused.

    Sums of signs and of bytes are integers that float32 counts exactly in any order, so signs and
    scores are those of the network bit for bit. A runtime must not transform convolutions into
    others with fractions (Winograd). Two things may differ in the last bit:

    - sums of real numbers, in float64, whose order is the runtime's, and so, where one of them
      comes to lie on the other side of a threshold, a sign;
    - scores that a factor and a summand make in one rounding (after torch's batch normalisation):
      here float64 rounds first.

    Parameters
    ----------
    network : PackedNetwork
    path : path
        Of the file; its folder is made if missing.
    member : int, optional
        Which one of several members, whose vote is not written; not needed for one.

    Raises
    ------
    ValueError
        For several members of which none is chosen, a member that is not there, or sums that
        float32 does not count.
    ImportError
        Without the package onnx.

    References
    ----------
    Open Neural Network Exchange. https://onnx.ai/onnx/operators/

    Examples
    --------
    >>> import tempfile, onnxruntime, torch
    >>> from pbnn.networks import BLRNet
    >>> from pbnn.packed import pack
    >>> generator = torch.Generator().manual_seed(0)
    >>> packed = pack(BLRNet((1, 8, 8), "8C3-MP2-SM10", generator=generator))
    >>> path = os.path.join(tempfile.mkdtemp(), "network.onnx")
    >>> to_onnx(packed, path)
    >>> images = np.arange(128, dtype=np.uint8).reshape(2, 1, 8, 8)
    >>> scores, label = onnxruntime.InferenceSession(path).run(None, {"x": images})
    >>> bool((scores == packed.scores(images)).all() and (label == packed.predict(images)).all())
    True
    """
    try:
        import onnx
    except ImportError as error:
        raise ImportError("`to_onnx` needs the package onnx: pip install 'pbnn[onnx]'") from error
    model = _model(network, _chosen(network, member))
    onnx.checker.check_model(model, full_check=True)
    write_atomic(path, model.SerializeToString(deterministic=True))


def _chosen(network: PackedNetwork, member: int | None) -> tuple[Layer, ...]:
    """The layers of the member."""
    count = len(network.members)
    if member is None and count > 1:
        raise ValueError(f"`member` must be one of 0, …, {count - 1}, whose vote is not written.")
    chosen = 0 if member is None else member
    if type(chosen) is not int or not 0 <= chosen < count:
        raise ValueError(f"`member` must be one of 0, …, {count - 1}, got {member!r}.")
    layers = network.members[chosen]
    for layer in layers:
        most = layer.geometry.fan_in * (PIXEL if layer.input == "uint8" else 1)
        if isinstance(layer, BitLayer) and most >= EXACT:
            raise ValueError(
                f"`network` must have sums below {EXACT}, up to which float32 counts, got {most} "
                f"in {layer.name!r}."
            )
    return layers


class _Graph:
    """A graph that grows: values are known by names, which begin with their layer's."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.layer = "input"

    def constant(self, value: Any, dtype: Any = None) -> str:
        from onnx import numpy_helper

        name = f"{self.layer}.constant{len(self.constants)}"
        array = np.array(value, dtype, order="C")
        self.constants.append(numpy_helper.from_array(array, name))
        return name

    def channels(self, value: Array) -> str:
        """A constant with one number a channel."""
        return self.constant(value.reshape(1, -1, 1, 1))

    def add(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        from onnx import helper

        name = output or f"{self.layer}.{operator}{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name

    def cast(self, x: str, dtype: Any) -> str:
        return self.add("Cast", x, to=_type_of(dtype))

    def reshaped(self, x: str, *shape: int, output: str = "") -> str:
        """0 stands for the size there is."""
        return self.add("Reshape", x, self.constant(shape, np.int64), output=output)


def _type_of(dtype: Any) -> int:
    from onnx import helper

    return helper.np_dtype_to_tensor_dtype(np.dtype(dtype))


def _model(network: PackedNetwork, layers: tuple[Layer, ...]) -> Any:
    from onnx import helper

    from pbnn import __version__

    kind = network.preprocessing.input
    given = _type_of("float32" if kind == "signs" else kind)
    x = helper.make_tensor_value_info("x", given, ["n", *network.preprocessing.image])
    graph, at = _Graph(), "x"
    if kind == "signs":
        zero, one, minus = (graph.constant(value, np.float32) for value in (0, 1, -1))
        at = graph.add("Where", graph.add("GreaterOrEqual", at, zero), one, minus)
    for place, layer in enumerate(layers):
        graph.layer = f"{place}.{layer.name}"
        if isinstance(layer, BitLayer):
            at = _bit_product(graph, layer, at)
        else:
            at = _real_product(graph, layer, at)
        if isinstance(layer.tail, Thresholds):
            at = _signs(graph, layer, at)
    tail, (rows, columns) = layers[-1].tail, layers[-1].geometry.positions
    assert isinstance(tail, Scores)
    _scores(graph, layers[-1], at)
    places = [] if rows == columns == 1 else [rows, columns]
    width = layers[-1].geometry.width
    outputs = [
        helper.make_tensor_value_info("scores", _type_of(tail.dtype), ["n", width, *places]),
        helper.make_tensor_value_info("label", _type_of(np.int64), ["n", *places]),
    ]
    made = helper.make_graph(graph.nodes, "pbnn", [x], outputs, graph.constants)
    return helper.make_model(
        made,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR,
        producer_name="pbnn",
        producer_version=__version__,
    )


def _surrounded(graph: _Graph, layer: Layer, x: str, filling: Any) -> str:
    """Images with their border."""
    top, bottom, left, right = layer.geometry.border
    if not any(layer.geometry.border):
        return x
    around = graph.constant([0, 0, top, left, 0, 0, bottom, right], np.int64)
    return graph.add("Pad", x, around, graph.constant(filling))


def _bit_product(graph: _Graph, layer: BitLayer, x: str) -> str:
    """Sums of signs, or of bytes, in float32."""
    shape, filling = layer.geometry, layer.geometry.filling
    if layer.input == "uint8":
        x, filling = graph.cast(x, np.float32), PIXEL * max(filling, 0)
    x = _surrounded(graph, layer, x, np.float32(filling))
    return graph.add(
        "Conv",
        x,
        graph.constant(layer.weight(np.float32).transpose(0, 3, 1, 2)),
        kernel_shape=shape.kernel,
        strides=shape.stride,
        dilations=shape.dilation,
    )


def _real_product(graph: _Graph, layer: RealLayer, x: str) -> str:
    """Sums of real numbers in float64, rounded to the weights' dtype.

    What each filter sees is gathered and multiplied as a matrix, as few runtimes convolve float64.
    """
    shape, dtype = layer.geometry, layer.values.dtype
    if layer.input == "real":
        shift = graph.constant(layer.shift.transpose(2, 0, 1))
        x = graph.add("Sub", graph.cast(x, dtype), shift)
    x = _surrounded(graph, layer, graph.cast(x, np.float64), np.float64(shape.filling))
    # (n, channels, height, width) to (n, channels, taps, rows, taps, columns).
    for axis, along in ((2, 0), (4, 1)):
        taps = np.arange(shape.kernel[along]) * shape.dilation[along]
        steps = np.arange(shape.positions[along]) * shape.stride[along]
        seen = graph.constant(taps[:, None] + steps, np.int64)
        x = graph.add("Gather", x, seen, axis=axis)
    # In the order in which the packed network sums: rows, columns, channels of a filter.
    x = graph.add("Transpose", x, perm=(0, 2, 4, 1, 3, 5))
    rows, columns = shape.positions
    x = graph.reshaped(x, 0, shape.fan_in, rows * columns)
    weight = graph.constant(layer.weight(np.float64).reshape(shape.width, -1))
    x = graph.reshaped(graph.add("MatMul", weight, x), 0, shape.width, rows, columns)
    return graph.cast(x, dtype)


def _signs(graph: _Graph, layer: Layer, a: str) -> str:
    """Signs of pre-activations, of a window the greatest, or the least."""
    shape, tail = layer.geometry, layer.tail
    assert isinstance(tail, Thresholds)
    # Those that float32 rounds are beyond all sums, and so are what they are rounded to.
    level = tail.level.astype(np.float32) if tail.level.dtype == np.int32 else tail.level
    if len(level) > 1:
        level = level[shape.places].T.reshape(1, shape.width, *shape.positions)
    else:
        level = level.reshape(1, -1, 1, 1)
    above = graph.add("GreaterOrEqual", a, graph.constant(level))
    flip = np.where(tail.flip, -1, 1).astype(np.float32)
    if not shape.pools:
        return graph.add("Where", above, graph.channels(flip), graph.channels(-flip))
    # The least is minus the greatest of what is turned round.
    turn = np.where(tail.every, -1, 1).astype(np.float32)
    signs = graph.add("Where", above, graph.channels(turn), graph.channels(-turn))
    most = graph.add("MaxPool", signs, kernel_shape=shape.pool, strides=shape.pool_stride)
    return graph.add("Mul", most, graph.channels(turn * flip))


def _scores(graph: _Graph, layer: Layer, a: str) -> None:
    """Scores and labels of pre-activations, step by step."""
    tail, shape = layer.tail, layer.geometry
    assert isinstance(tail, Scores)
    if isinstance(layer, BitLayer):
        # As integers: a runtime may multiply weights by the factors of a step, but not across this.
        a = graph.cast(a, np.int32)
    at = graph.cast(a, tail.dtype)
    for name, value in tail.steps:
        if name == "fma":
            factor, summand = (graph.channels(each.astype(np.float64)) for each in value)
            product = graph.add("Mul", graph.cast(at, np.float64), factor)
            at = graph.cast(graph.add("Add", product, summand), tail.dtype)
        else:
            at = graph.add(name.capitalize(), at, graph.channels(value))
    places = () if shape.positions == (1, 1) else shape.positions
    graph.layer = "output"
    scores = graph.reshaped(at, 0, shape.width, *places, output="scores")
    if shape.width > 1:
        graph.add("ArgMax", scores, axis=1, keepdims=0, output="label")
        return
    up = graph.add("GreaterOrEqual", scores, graph.constant(0, tail.dtype))
    one, minus = (graph.constant(value, np.int64) for value in (1, -1))
    label = graph.add("Where", up, one, minus)
    graph.add("Squeeze", label, graph.constant([1], np.int64), output="label")
