"""Data sets as NumPy arrays, the tasks made of them, and splits fixed before any training."""

from pbnn.data.csv_files import from_csv
from pbnn.data.image_folders import from_images
from pbnn.data.loading import TASKS, embedded_twin, load, load_once
from pbnn.data.registry import DataUnavailable
from pbnn.data.scaling import standardise
from pbnn.data.seen import check_unseen, example_hashes
from pbnn.data.splits import Splits, cut, published_split, split
from pbnn.data.tasks import Task

__all__ = [
    "TASKS",
    "DataUnavailable",
    "Splits",
    "Task",
    "check_unseen",
    "cut",
    "embedded_twin",
    "example_hashes",
    "from_csv",
    "from_images",
    "load",
    "load_once",
    "published_split",
    "split",
    "standardise",
]
