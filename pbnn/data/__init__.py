"""Data sets as NumPy arrays, the tasks made of them, and splits fixed before any training."""

from pbnn.data.csv_files import from_csv
from pbnn.data.image_folders import from_images
from pbnn.data.loading import TASKS, embedded_twin, load
from pbnn.data.registry import DataUnavailable
from pbnn.data.scaling import standardise
from pbnn.data.splits import Splits, published_split, split
from pbnn.data.tasks import Task

__all__ = [
    "TASKS",
    "DataUnavailable",
    "Splits",
    "Task",
    "embedded_twin",
    "from_csv",
    "from_images",
    "load",
    "published_split",
    "split",
    "standardise",
]
