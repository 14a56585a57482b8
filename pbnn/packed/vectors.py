"""Blocks of rows times filters, written in LLVM's vectors: how many bits differ, or sums of bytes.

A block is some rows times 16, 32 or 64 filters, whose counters stay in registers. Filters lie side
by side: what one row reads is spread over the lanes, and each lane counts for one filter, so that
no counter has to be summed up at the end, and 16 comparisons with thresholds are 16 bits of output.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

from llvmlite import binding, ir
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 16
_CHOSEN: bool = bool(getattr(config, "CPU_NAME", None) or getattr(config, "CPU_FEATURES", None))
_HOST: dict[str, bool] = {} if _CHOSEN else dict(binding.get_host_cpu_features())
ROWS = 4 if _HOST.get("avx512f") else 1
"""Rows of a block: as many as there are registers for."""
_DOTS = bool(_HOST.get("avx512vnni") and _HOST.get("avx512f"))

I8, I16, I32, I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
COUNTERS = ir.VectorType(I32, LANES)
BYTES = ir.VectorType(I8, 4 * LANES)
Value = Any


class _Block:
    """The instructions of one block."""

    def __init__(self, builder: Any, rows: int, parts: int) -> None:
        self.builder, self.rows, self.parts = builder, rows, parts
        zero = ir.Constant(COUNTERS, [0] * LANES)
        self.counters = [[self._counter(zero) for _ in range(parts)] for _ in range(rows)]

    def _counter(self, zero: Value) -> Value:
        counter = cgutils.alloca_once(self.builder, COUNTERS)
        self.builder.store(zero, counter)
        return counter

    def pointer(self, address: Value, kind: Any) -> Value:
        return self.builder.inttoptr(address, kind.as_pointer())

    def load(self, address: Value, kind: Any) -> Value:
        loaded = self.builder.load(self.pointer(address, kind))
        loaded.align = 1
        return loaded

    def store(self, value: Value, address: Value) -> None:
        stored = self.builder.store(value, self.pointer(address, value.type))
        stored.align = 1

    def at(self, address: Value, index: Value | int, size: int) -> Value:
        """The address of a number of `size` bytes."""
        if isinstance(index, int):
            return self.builder.add(address, ir.Constant(I64, index * size))
        return self.builder.add(address, self.builder.mul(index, ir.Constant(I64, size)))

    def spread(self, word: Value) -> Value:
        """A word in all lanes."""
        nothing = ir.Constant(COUNTERS, ir.Undefined)
        first = self.builder.insert_element(nothing, word, ir.Constant(I32, 0))
        return self.builder.shuffle_vector(first, nothing, ir.Constant(COUNTERS, [0] * LANES))

    @contextlib.contextmanager
    def repeated(self, count: Value) -> Iterator[Value]:
        with cgutils.for_range(self.builder, count) as loop:
            yield loop.index

    def add(self, row: int, part: int, value: Value) -> None:
        counter = self.counters[row][part]
        self.builder.store(self.builder.add(self.builder.load(counter), value), counter)

    def finish(self, how: str, row: int, levels: Value, out: Value) -> None:
        """Write counters, or the bits of what a comparison with their levels says."""
        for part in range(self.parts):
            counter = self.builder.load(self.counters[row][part])
            if how == "counts":
                self.store(counter, self.at(out, part, 4 * LANES))
                continue
            level = self.load(self.at(levels, part, 4 * LANES), COUNTERS)
            bits = self.builder.icmp_signed(how, counter, level)
            self.store(self.builder.bitcast(bits, I16), self.at(out, part, LANES // 8))


class _Given(NamedTuple):
    """Addresses and sizes that a block works on."""

    base: Value
    offsets: Value
    segments: Value
    words: Value
    panel: Value
    mask: Value
    rows: list[Value]


def _count_bits(block: _Block, words: Value) -> Value:
    kind = ir.FunctionType(COUNTERS, [COUNTERS])
    count = cgutils.get_or_insert_function(block.builder.module, kind, f"llvm.ctpop.v{LANES}i32")
    return block.builder.call(count, [words])


def _differing(block: _Block, given: _Given, masked: bool) -> None:
    """Count the bits of rows that differ from those of filters, where there is a mask in it."""
    base, offsets, segments, words, panel, mask, rows = given
    with block.repeated(segments) as segment:
        offset = block.load(block.at(offsets, segment, 8), I64)
        with block.repeated(words) as word:
            place = block.builder.add(block.builder.mul(segment, words), word)
            size = 4 * LANES * block.parts
            here, there = (block.at(each, place, size) for each in (panel, mask))
            filters = [
                block.load(block.at(here, part, 4 * LANES), COUNTERS) for part in range(block.parts)
            ]
            index = block.builder.add(offset, word)
            for row in range(block.rows):
                at = block.builder.add(rows[row], index)
                word_of_row = block.spread(block.load(block.at(base, at, 4), I32))
                for part in range(block.parts):
                    differ = block.builder.xor(word_of_row, filters[part])
                    if masked:
                        kept = block.load(block.at(there, part, 4 * LANES), COUNTERS)
                        differ = block.builder.and_(differ, kept)
                    block.add(row, part, _count_bits(block, differ))


def _summing(block: _Block, given: _Given, masked: bool) -> None:
    """Add up bytes of rows with the signs of filters, four at a time."""
    base, offsets, segments, quads, panel, mask, rows = given
    with block.repeated(segments) as segment:
        offset = block.load(block.at(offsets, segment, 8), I64)
        with block.repeated(quads) as quad:
            place = block.builder.add(block.builder.mul(segment, quads), quad)
            size = LANES // 2 * block.parts
            here, there = (block.at(each, place, size) for each in (panel, mask))
            filters = []
            for part in range(block.parts):
                negative = block.load(block.at(here, part, LANES // 2), I64)
                signs = block.builder.or_(_widened(block, negative), ir.Constant(BYTES, [1] * 64))
                if masked:
                    kept = _widened(block, block.load(block.at(there, part, LANES // 2), I64))
                    signs = block.builder.and_(signs, kept)
                filters.append(signs)
            within = block.at(offset, quad, 4)
            for row in range(block.rows):
                at = block.builder.add(block.builder.add(base, rows[row]), within)
                four = block.spread(block.load(at, I32))
                for part in range(block.parts):
                    _add_dots(block, row, part, four, filters[part])


def _widened(block: _Block, bits: Value) -> Value:
    """Bytes −1 and 0 for bits 1 and 0."""
    flags = block.builder.bitcast(bits, ir.VectorType(ir.IntType(1), 4 * LANES))
    return block.builder.sext(flags, BYTES)


def _add_dots(block: _Block, row: int, part: int, given: Value, signs: Value) -> None:
    builder, counter = block.builder, block.counters[row][part]
    given = builder.bitcast(given, BYTES)
    if _DOTS:
        kind = ir.FunctionType(COUNTERS, [COUNTERS, BYTES, BYTES])
        name = "llvm.x86.avx512.vpdpbusd.512"
        dots = cgutils.get_or_insert_function(builder.module, kind, name)
        builder.store(builder.call(dots, [builder.load(counter), given, signs]), counter)
        return
    wide = ir.VectorType(I32, 4 * LANES)
    products = builder.mul(builder.zext(given, wide), builder.sext(signs, wide))
    nothing = ir.Constant(wide, ir.Undefined)
    for place in range(4):
        lanes = ir.Constant(COUNTERS, [4 * lane + place for lane in range(LANES)])
        block.add(row, part, builder.shuffle_vector(products, nothing, lanes))


@intrinsic(prefer_literal=True)
def block(  # type: ignore[no-untyped-def]
    _, parts, x, offsets, segments, words, panel, mask, out, places, filters, levels, outs
):
    """What a kernel calls for one block of rows and 16 · `parts` filters.

    Of words of `x` (uint32) it counts the bits that differ from those of filters, which lie at most
    at a limit; of bytes (uint8) it adds up their products, which reach at least a level. `out` of
    bytes takes the bits of that comparison, of int32 the numbers themselves. `mask` may be None.

    The tuples hold, for each row, its place in `x` in words, or bytes; `filters` are the bytes from
    the start of `panel` and `mask` to the chunk; for each row the addresses of levels and outputs.
    `words` are those of one of the `segments`, whose `offsets` are added to a row's place.
    """
    work = _differing if x.dtype == types.uint32 else _summing
    masked, rows = mask is not types.none, len(places)
    counts = out.dtype == types.int32
    compared = "<=" if x.dtype == types.uint32 else ">="
    signature = types.void(
        parts, x, offsets, segments, words, panel, mask, out, places, filters, levels, outs
    )

    def generate(context: Any, builder: Any, _: Any, args: list[Value]) -> Value:
        def address(place: int) -> Value:
            array = context.make_array(signature.args[place])(context, builder, args[place])
            return builder.ptrtoint(array.data, I64)

        made = _Block(builder, rows, parts.literal_value)
        panels = builder.add(address(5), args[9])
        masks = builder.add(address(6), args[9]) if masked else panels
        places, levels, outs = (cgutils.unpack_tuple(builder, args[i]) for i in (8, 10, 11))
        given = _Given(address(1), address(2), args[3], args[4], panels, masks, places)
        work(made, given, masked)
        for row in range(rows):
            made.finish("counts" if counts else compared, row, levels[row], outs[row])
        return context.get_dummy_value()

    return signature, generate
