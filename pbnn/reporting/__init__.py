"""Records into tables, figures and the CSV files from which both can be made again."""

from pbnn.reporting.csvs import (
    curves_from_csv,
    records_from_csv,
    write_curves_csv,
    write_records_csv,
    write_timings_csv,
)
from pbnn.reporting.figures import bound_vs_error, learning_curves
from pbnn.reporting.grids import bound_by_network, least
from pbnn.reporting.tables import LABELS, MEASURES, table, write_table

__all__ = [
    "LABELS",
    "MEASURES",
    "bound_by_network",
    "bound_vs_error",
    "curves_from_csv",
    "learning_curves",
    "least",
    "records_from_csv",
    "table",
    "write_curves_csv",
    "write_records_csv",
    "write_table",
    "write_timings_csv",
]
