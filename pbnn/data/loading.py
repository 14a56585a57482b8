"""Loading a task by its name."""

from __future__ import annotations

import difflib
import functools
import os
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from pbnn.data.files import obtain
from pbnn.data.images import Images, embedded_digits, from_idx, from_records
from pbnn.data.registry import ADS, ADULT, CIFAR10, CIFAR100, FASHION_MNIST, MNIST, Collection
from pbnn.data.tasks import Task
from pbnn.data.uci import ADULT_CONTINUOUS, encode_ads, encode_adult

# Which digits a task keeps and the sign it gives them: the lower one, or the even ones, are -1.
_SIGNS = {
    "17": {1: -1, 7: 1},
    "49": {4: -1, 9: 1},
    "56": {5: -1, 6: 1},
    "LH": {digit: -1 if digit < 5 else 1 for digit in range(10)},
    "EO": {digit: -1 if digit % 2 == 0 else 1 for digit in range(10)},
}
_COLLECTIONS: dict[str, Collection[Any]] = {
    "mnist": MNIST,
    "fashion_mnist": FASHION_MNIST,
    "cifar10": CIFAR10,
    "cifar100": CIFAR100,
    "adult": ADULT,
    "ads": ADS,
}
_READERS: dict[str, Callable[[Collection[Any], Mapping[str, Any]], Images]] = {
    "mnist": from_idx,
    "fashion_mnist": from_idx,
    "cifar10": from_records,
    "cifar100": from_records,
}
_VARIANTS = {
    stem + variant: (stem, variant) for stem in ("mnist", "digits") for variant in ("", *_SIGNS)
} | {name: (name, "") for name in ("fashion_mnist", "cifar10", "cifar100")}

_ENCODINGS = {"adult": encode_adult, "ads": encode_ads}
_NOTES = {
    "adult": f". Columns 0 to {len(ADULT_CONTINUOUS) - 1} are continuous and raw "
    f"({', '.join(ADULT_CONTINUOUS)}), the others one-hot; >50K is +1",
    "ads": " without its first four columns. All are 0 or 1; an advertisement is +1",
}

TASKS: tuple[str, ...] = (*_VARIANTS, "breast_cancer", *_ENCODINGS)
"""The names `load` knows."""


def load(
    name: str,
    data_dir: str | os.PathLike[str] | None = None,
    offline: bool = False,
    progress: bool = True,
) -> Task:
    r"""Load a task by its name, from a folder, the cache, a mirror, or scikit-learn.

    ``mnist17``, ``mnist49`` and ``mnist56`` tell two digits apart (the lower is -1), ``mnistLH``
    tells 0-4 (-1) from 5-9, ``mnistEO`` even (-1) from odd, ``mnist`` has all ten classes; each
    uses all 70,000 images, training before test, with pixels :math:`/255`. So does
    ``fashion_mnist``, with its ten classes. ``digits17`` and so on are small twins of MNIST, made
    of the 8x8 digits (:math:`/16`) that scikit-learn carries, and ``breast_cancer`` its 30 raw
    features (malignant is -1): these need no file and no network.

    ``cifar10`` and ``cifar100`` (its 100 fine classes) are colour images (3, 32, 32), training
    before test, :math:`/255`. They come from files of records that are not downloaded, and of
    which the fifth training batch of ``cifar10`` may be missing; `Task.source` says how many
    images were found, and whether their content is a known one.

    ``adult`` predicts an income of more than 50K (+1) from 6 continuous columns, raw, followed
    by 102 of 0 and 1; it has the examples of both files, ``adult.data`` first. ``ads`` tells
    advertisements (+1) from other images by 1554 columns of 0 and 1, without the first four
    columns of the file, some of whose values are missing. No value of either depends on another
    example: see `standardise`.

    Parameters
    ----------
    name : str
        One of `TASKS`.
    data_dir : path, optional
        The folder that holds ``mnist/`` and ``fashion-mnist/`` with the four IDX files,
        ``cifar10/`` with ``data_batch_1.bin`` to ``data_batch_5.bin`` and ``test_batch.bin``,
        ``cifar100/`` with ``train.bin`` and ``test.bin``, ``adult/`` with ``adult.data`` and
        ``adult.test``, ``ads/`` with ``ad.data``, each raw or gzipped; by default the environment
        variable ``PBNN_DATA``. If it is named, nothing else is searched. If not, the user's cache
        is searched, then the mirrors.
    offline : bool
        Whether to leave the mirrors alone.
    progress : bool
        Whether to show a bar while downloading.

    Raises
    ------
    ValueError
        For an unknown name, or naming a file whose content is not what it must be.
    FileNotFoundError
        If the named folder or a file in it is missing.
    DataUnavailable
        If no folder was named and neither cache nor mirror has the files.

    References
    ----------
    Letarte, Germain, Guedj and Laviolette, Dichotomize and Generalize (2019), section 6.
    https://arxiv.org/abs/1905.10259

    Krizhevsky, Learning multiple layers of features from tiny images (2009).
    https://www.cs.toronto.edu/~kriz/cifar.html

    Xiao, Rasul and Vollgraf, Fashion-MNIST (2017). https://arxiv.org/abs/1708.07747

    Becker and Kohavi, Adult (1996), UCI. https://doi.org/10.24432/C5XW20

    Kushmerick, Internet Advertisements (1998), UCI. https://doi.org/10.24432/C5V011

    Examples
    --------
    >>> task = load("digits17")
    >>> task.x.shape, task.source
    ((361, 1, 8, 8), 'scikit-learn digits (bundled, 8x8; not MNIST)')
    """
    _check_name(name)
    if name == "breast_cancer":
        return _breast_cancer()
    stem, variant = _VARIANTS.get(name, (name, ""))
    if stem == "digits":
        return _choose(name, embedded_digits(), variant)
    collection = _COLLECTIONS[stem]
    contents = obtain(collection, data_dir, offline=offline, progress=progress)
    if stem in _READERS:
        return _choose(name, _READERS[stem](collection, contents), variant)
    x, y = _ENCODINGS[name](contents)
    source = collection.title + _NOTES[name]
    return Task.of(name, x, y, source, train=collection.train(len(y)))


def load_once(
    name: str, data_dir: str | os.PathLike[str] | None = None, offline: bool = False
) -> Task:
    """`load`, but a process that asks again gets what it has; its arrays are not to be changed.

    The last four data sets are kept. Without a bar.

    Examples
    --------
    >>> load_once("digits17") is load_once("digits17")
    True
    """
    return _kept(name, None if data_dir is None else os.fspath(data_dir), offline, _folder())


def _folder() -> str | None:
    """Where data are looked for, which a process may change."""
    return os.environ.get("PBNN_DATA")


@functools.lru_cache(maxsize=4)
def _kept(name: str, data_dir: str | None, offline: bool, _: str | None) -> Task:
    return load(name, data_dir, offline=offline, progress=False)


def embedded_twin(name: str) -> str:
    """The task of the same kind that needs neither file nor network.

    Examples
    --------
    >>> [embedded_twin(name) for name in ("mnist17", "cifar10", "adult")]
    ['digits17', 'digits', 'breast_cancer']
    """
    _check_name(name)
    if name in _ENCODINGS:
        return "breast_cancer"
    stem, variant = _VARIANTS.get(name, (name, ""))
    return f"digits{variant}" if stem in _COLLECTIONS else name


def _check_name(name: str) -> None:
    if name not in TASKS:
        close = difflib.get_close_matches(str(name), TASKS, n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else f"one of {', '.join(TASKS)}."
        raise ValueError(f"`name` must be a known task, got {name!r}: {hint}")


def _breast_cancer() -> Task:
    from sklearn.datasets import load_breast_cancer

    bunch = load_breast_cancer()
    # Raw on purpose: standardising would let every example depend on the test examples.
    x, y = bunch.data.astype(np.float32), (2 * bunch.target - 1).astype(np.float32)
    return Task.of("breast_cancer", x, y, "scikit-learn breast cancer (Wisconsin, bundled)")


def _choose(name: str, images: Images, variant: str) -> Task:
    """The task of the images that a variant keeps, with their labels."""
    signs = _SIGNS.get(variant)
    if signs is None:
        rows, y = np.arange(len(images.classes)), images.classes.astype(np.int64)
    else:
        table = np.array([signs.get(digit, 0) for digit in range(10)], dtype=np.float32)
        rows = np.flatnonzero(table[images.classes])
        y = table[images.classes[rows]]
    train = None if images.train is None else int(np.count_nonzero(rows < images.train))
    return Task.of(name, images.pixels(rows), y, images.source, train=train)
