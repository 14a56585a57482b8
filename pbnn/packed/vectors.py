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
_WIDE = bool(_HOST.get("avx512f"))
_DOTS = bool(_HOST.get("avx512vnni") and _WIDE)
ROWS = 4
"""Rows of which a block is told; it works on as many as there are registers for (`rows_of`)."""


def rows_of(words: bool, masked: bool) -> int:
    """Rows of a block of words, or bytes: with two counters each where three words are one sum."""
    if not _WIDE:
        return 1
    return 2 if words and not masked else ROWS


I8, I16, I32, I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
COUNTERS = ir.VectorType(I32, LANES)
BYTES = ir.VectorType(I8, 4 * LANES)
Value = Any


class _Block:
    """The instructions of one block."""

    def __init__(self, builder: Any, rows: int, parts: int) -> None:
        self.builder, self.rows, self.parts = builder, rows, parts
        self.counters = self._cleared()
        self.carries: list[list[Value]] | None = None

    def _cleared(self) -> list[list[Value]]:
        """A counter of each row and part, in registers once LLVM has seen it."""
        made = [
            [cgutils.alloca_once(self.builder, COUNTERS) for _ in range(self.parts)]
            for _ in range(self.rows)
        ]
        for row in made:
            for counter in row:
                self.builder.store(ir.Constant(COUNTERS, [0] * LANES), counter)
        return made

    def carry(self) -> None:
        """From here on there are counters of carries, which count twice."""
        self.carries = self._cleared()

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

    def add(self, row: int, part: int, value: Value, carry: bool = False) -> None:
        counters = self.carries if carry else self.counters
        assert counters is not None
        counter = counters[row][part]
        self.builder.store(self.builder.add(self.builder.load(counter), value), counter)

    def counted(self, row: int, part: int) -> Value:
        """What a counter has come to."""
        total = self.builder.load(self.counters[row][part])
        if self.carries is None:
            return total
        twice = self.builder.load(self.carries[row][part])
        return self.builder.add(total, self.builder.add(twice, twice))

    def finish(self, how: str, row: int, levels: Value, out: Value) -> None:
        """Write counters, or the bits of what a comparison with their levels says."""
        for part in range(self.parts):
            counter = self.counted(row, part)
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
    pixels: Value
    words: Value
    panel: Value
    mask: Value
    rows: list[Value]


def _count_bits(block: _Block, words: Value) -> Value:
    kind = ir.FunctionType(COUNTERS, [COUNTERS])
    count = cgutils.get_or_insert_function(block.builder.module, kind, f"llvm.ctpop.v{LANES}i32")
    return block.builder.call(count, [words])


def _differing(block: _Block, given: _Given, masked: bool) -> None:
    """Count the bits of rows that differ from those of filters, where there is a mask in it.

    Without one the words of a pixel are `pbnn.packed.bits.thirds`: the bits of three words that
    differ are, at each place, a sum, which differs as the third one does, and a carry of two.
    """
    builder = block.builder
    three = ir.Constant(I64, 3)
    if not masked:
        block.carry()
    with block.repeated(given.segments) as segment:
        offset = block.load(block.at(given.offsets, segment, 8), I64)
        with block.repeated(given.pixels) as pixel:
            before = builder.add(builder.mul(segment, given.pixels), pixel)
            place = builder.mul(before, given.words)
            index = builder.add(offset, builder.mul(pixel, given.words))
            done: Value = ir.Constant(I64, 0)
            if not masked:
                triples = builder.udiv(given.words, three)
                with block.repeated(triples) as triple:
                    at = builder.mul(triple, three)
                    _three_words(block, given, builder.add(place, at), builder.add(index, at))
                done = builder.mul(triples, three)
            with block.repeated(builder.sub(given.words, done)) as word:
                at = builder.add(done, word)
                _one_word(block, given, builder.add(place, at), builder.add(index, at), masked)


def _filters(block: _Block, given: _Given, place: Value, part: int, panel: Value) -> Value:
    """A word of 16 filters."""
    start = block.at(panel, place, 4 * LANES * block.parts)
    return block.load(block.at(start, part, 4 * LANES), COUNTERS)


def _of_row(block: _Block, given: _Given, row: int, index: Value) -> Value:
    """A word of a row, in all lanes."""
    at = block.builder.add(given.rows[row], index)
    return block.spread(block.load(block.at(given.base, at, 4), I32))


def _one_word(block: _Block, given: _Given, place: Value, index: Value, masked: bool) -> None:
    words = [_of_row(block, given, row, index) for row in range(block.rows)]
    for part in range(block.parts):
        filters = _filters(block, given, place, part, given.panel)
        kept = _filters(block, given, place, part, given.mask) if masked else None
        for row, word in enumerate(words):
            differ = block.builder.xor(word, filters)
            if kept is not None:
                differ = block.builder.and_(differ, kept)
            block.add(row, part, _count_bits(block, differ))


def _three_words(block: _Block, given: _Given, place: Value, index: Value) -> None:
    builder = block.builder
    steps = [ir.Constant(I64, step) for step in range(3)]
    words = [
        [_of_row(block, given, row, builder.add(index, step)) for step in steps]
        for row in range(block.rows)
    ]
    for part in range(block.parts):
        filters = [
            _filters(block, given, builder.add(place, step), part, given.panel) for step in steps
        ]
        for row in range(block.rows):
            first, second, total = (
                builder.xor(word, each) for word, each in zip(words[row], filters, strict=True)
            )
            block.add(row, part, _count_bits(block, total))
            block.add(row, part, _count_bits(block, _carry(block, first, second, total)), True)


def _carry(block: _Block, first: Value, second: Value, total: Value) -> Value:
    """Where at least two of three bits are 1, of which the exclusive or is `total`."""
    builder = block.builder
    if _WIDE:
        kind = ir.FunctionType(COUNTERS, [COUNTERS, COUNTERS, COUNTERS, I32])
        name = "llvm.x86.avx512.pternlog.d.512"
        table = cgutils.get_or_insert_function(builder.module, kind, name)
        return builder.call(table, [first, second, total, ir.Constant(I32, 0xD4)])
    one = builder.and_(builder.xor(first, second), builder.not_(total))
    return builder.or_(builder.and_(first, second), one)


def _summing(block: _Block, given: _Given, masked: bool) -> None:
    """Add up bytes of rows with the signs of filters, four at a time."""
    base, offsets, segments, _, quads, panel, mask, rows = given
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
    _, parts, x, offsets, sizes, panel, mask, out, places, filters, levels, outs
):
    """What a kernel calls for one block of rows and 16 · `parts` filters.

    Of words of `x` (uint32) it counts the bits that differ from those of filters, which lie at most
    at a limit; of bytes (uint8) it adds up their products, which reach at least a level. `out` of
    bytes takes the bits of that comparison, of int32 the numbers themselves. `mask` may be None.

    The tuples hold, for each row, its place in `x` in words, or bytes, and the addresses of levels
    and outputs; `filters` are the bytes from the start of `panel` and `mask` to the chunk. Each of
    the segments, whose `offsets` are added to a row's place, has so many pixels of so many words,
    or one pixel of so many quads: `sizes`.
    """
    of_words, masked = x.dtype == types.uint32, mask is not types.none
    work, compared = (_differing, "<=") if of_words else (_summing, ">=")
    rows = rows_of(of_words, masked)
    counts = out.dtype == types.int32
    given = (offsets, sizes, panel, mask, out, places, filters, levels, outs)
    signature = types.void(parts, x, *given)

    def generate(context: Any, builder: Any, _: Any, args: list[Value]) -> Value:
        def address(place: int) -> Value:
            array = context.make_array(signature.args[place])(context, builder, args[place])
            return builder.ptrtoint(array.data, I64)

        made = _Block(builder, rows, parts.literal_value)
        panels = builder.add(address(4), args[8])
        masks = builder.add(address(5), args[8]) if masked else panels
        tuples = (cgutils.unpack_tuple(builder, args[place]) for place in (3, 7, 9, 10))
        sizes, places, levels, outs = tuples
        numbers = (sizes[0], sizes[1], sizes[2], panels, masks, places)
        work(made, _Given(address(1), address(2), *numbers), masked)
        for row in range(rows):
            made.finish("counts" if counts else compared, row, levels[row], outs[row])
        return context.get_dummy_value()

    return signature, generate
