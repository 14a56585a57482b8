"""The certified kl inverse against interval arithmetic; `make coverage` does a million inputs."""

from __future__ import annotations

import bound_rounding as rounding
import pytest

from pbnn.bounds import exact, kl_inverse

pytest.importorskip("flint", reason="the extra `exact` is not installed")


@pytest.mark.parametrize("seed", [0, 1])
def test_no_certified_value_is_inside_and_all_are_near(seed):
    found = rounding.rows(rounding.Config(inputs=10_000, seed=seed))
    certified = {row["side"]: row for row in found if row["result"] == "certified"}
    plain = {row["side"]: row for row in found if row["result"] == "plain"}
    for side in ("upper", "lower"):
        assert certified[side]["inside"] == 0
        # The comparison has teeth: about half of the plain results are inside.
        assert plain[side]["inside"] > 3_000
    assert certified["upper"]["most_ulps"] < 300


def test_the_comparison_agrees_with_the_nearest_float_that_is_outside():
    q, c = rounding.draw_inputs(40, 3)
    for a, b in zip(q.tolist(), c.tolist(), strict=True):
        for side, end in (("upper", exact.upper), ("lower", exact.lower)):
            best = kl_inverse(a, b, side, certify=True)
            nearest = end(kl_inverse, a, b, side)
            assert rounding.outside(a, b, nearest, side)
            if best >= rounding.SMALLEST:
                steps = rounding.steps_beyond(a, b, best, side)
                assert abs(best - nearest) == pytest.approx(steps * spacing(best), rel=0.5)


def spacing(x):
    import math

    return math.ulp(x)


def test_the_page_is_made_from_the_table(tmp_path):
    folder = rounding.study(rounding.Config(inputs=50, out=tmp_path))
    page = (folder / "rounding.md").read_bytes()
    (folder / "rounding.md").unlink()
    rounding.study(rounding.Config(out=tmp_path, redraw=True))
    assert (folder / "rounding.md").read_bytes() == page
    with pytest.raises(ValueError, match="`inputs` must be a positive integer, got 0"):
        rounding.Config(inputs=0)
    with pytest.raises(ValueError, match="`seed` must be at least 0, got -1"):
        rounding.Config(seed=-1)
