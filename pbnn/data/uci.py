"""Two tables of the UCI repository as arrays: Adult and Internet Advertisements."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pbnn.data.tables import Table, numbers, one_hot

Arrays = tuple[NDArray[np.float32], NDArray[np.float32]]

# The columns of Adult in the order of the file; None is a continuous one. The levels are those
# that adult.names lists, and "?" for unknown: none is read off the examples.
_ADULT: dict[str, str | None] = {
    "age": None,
    "workclass": "? Federal-gov Local-gov Never-worked Private Self-emp-inc Self-emp-not-inc "
    "State-gov Without-pay",
    "fnlwgt": None,
    "education": "10th 11th 12th 1st-4th 5th-6th 7th-8th 9th Assoc-acdm Assoc-voc Bachelors "
    "Doctorate HS-grad Masters Preschool Prof-school Some-college",
    "education-num": None,
    "marital-status": "Divorced Married-AF-spouse Married-civ-spouse Married-spouse-absent "
    "Never-married Separated Widowed",
    "occupation": "? Adm-clerical Armed-Forces Craft-repair Exec-managerial Farming-fishing "
    "Handlers-cleaners Machine-op-inspct Other-service Priv-house-serv Prof-specialty "
    "Protective-serv Sales Tech-support Transport-moving",
    "relationship": "Husband Not-in-family Other-relative Own-child Unmarried Wife",
    "race": "Amer-Indian-Eskimo Asian-Pac-Islander Black Other White",
    "sex": "Female Male",
    "capital-gain": None,
    "capital-loss": None,
    "hours-per-week": None,
    "native-country": "? Cambodia Canada China Columbia Cuba Dominican-Republic Ecuador "
    "El-Salvador England France Germany Greece Guatemala Haiti Holand-Netherlands Honduras Hong "
    "Hungary India Iran Ireland Italy Jamaica Japan Laos Mexico Nicaragua "
    "Outlying-US(Guam-USVI-etc) Peru Philippines Poland Portugal Puerto-Rico Scotland South "
    "Taiwan Thailand Trinadad&Tobago United-States Vietnam Yugoslavia",
}
ADULT_CONTINUOUS: tuple[str, ...] = tuple(name for name, text in _ADULT.items() if text is None)
"""The first columns of the encoded Adult; all others are 0 or 1."""

# Height, width, their ratio and whether the image is local: each is missing in some rows.
_ADS_DROPPED = 4
_BITS = frozenset("01")


def encode_adult(tables: Mapping[str, Table]) -> Arrays:
    """Inputs (N, 108) and labels (N,) of Adult, the tables one after another.

    The six continuous columns come first and stay raw; then each categorical column gives one
    column per level, an unknown "?" included, levels in the order of their characters. No value
    depends on another row. More than 50K is +1.
    """
    parts = [_encode_adult(table) for table in tables.values()]
    return np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts])


def _encode_adult(table: Table) -> Arrays:
    continuous, categorical = [], []
    for index, (name, levels) in enumerate(_ADULT.items()):
        column = table.column(index, name)
        if levels is None:
            continuous.append(numbers(column))
        else:
            categorical.append(one_hot(column, levels.split()))
    return np.concatenate(continuous + categorical, axis=1), _signs(table, "<=50K", ">50K")


def encode_ads(tables: Mapping[str, Table]) -> Arrays:
    """Inputs (N, 1554) of 0 and 1 and labels (N,) of Internet Advertisements; "ad" is +1."""
    (table,) = tables.values()
    bits = [fields[_ADS_DROPPED:-1] for fields in table.rows]
    for row, fields in enumerate(bits):
        if not _BITS.issuperset(fields):
            index = next(i for i, field in enumerate(fields, _ADS_DROPPED) if field not in _BITS)
            raise table.column(index, str(index)).fault(row, "must be 0 or 1")
    text = "".join(map("".join, bits)).encode()
    x = (np.frombuffer(text, dtype=np.uint8) == ord("1")).astype(np.float32)
    return x.reshape(len(bits), -1), _signs(table, "nonad", "ad")


def _signs(table: Table, negative: str, positive: str) -> NDArray[np.float32]:
    """The last column as -1 and +1."""
    column = table.column(-1, "class")
    # Only one of the two files of Adult puts a full stop after its classes.
    names = [cell.removesuffix(".") for cell in column.cells]
    classes = one_hot(replace(column, cells=names), (negative, positive))
    return classes[:, 1] - classes[:, 0]
