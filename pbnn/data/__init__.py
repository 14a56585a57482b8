"""Data sets as NumPy arrays, the tasks made of them, and splits fixed before any training."""

from pbnn.data.csv_files import from_csv
from pbnn.data.registry import DataUnavailable
from pbnn.data.scaling import standardise
from pbnn.data.splits import Splits, split
from pbnn.data.tasks import TASKS, Task, embedded_twin, load

__all__ = [
    "TASKS",
    "DataUnavailable",
    "Splits",
    "Task",
    "embedded_twin",
    "from_csv",
    "load",
    "split",
    "standardise",
]
