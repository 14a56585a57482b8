"""The committed report: its figures are those of its certificates, and of the README."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from pbnn.certificates import Certificate, verify
from pbnn.reporting import records_from_csv, table

ROOT = Path(__file__).parents[1]
REPORT = ROOT / "reports" / "pac_bound_mnist"


def test_every_reported_bound_is_that_of_a_sound_certificate():
    certificates = json.loads((REPORT / "certificates.json").read_text())
    certified = 0
    for record in records_from_csv(REPORT / "records.csv"):
        if not record["config"]["method"].startswith("pbgnet"):
            continue
        for name in ("gibbs", "vote"):
            certificate = Certificate.from_dict(certificates[record["key"]][name])
            verify(certificate)
            assert certificate.bound == record["measures"][f"bound_{name}"]
            assert certificate.n == record["measures"]["n"]
            assert certificate.budget.choices >= 1000
            assert certificate.budget.seeds == record["config"]["seeds"]
            certified += 1
    assert certified == 2 * 2 * 4 * 3


@pytest.mark.parametrize("column", [("pbgnet", 1, 2), ("pbgnet_pre", 4, 5)])
def test_the_readme_prints_the_tables_means(column):
    method, bound_at, risk_at = column
    frame = table(records_from_csv(REPORT / "records.csv")).set_index(["dataset", "method"])
    rows = re.findall(r"^\| (mnist\w\w) \|(.*)\|$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert len(rows) == 4
    for dataset, cells in rows:
        printed = [float(cell) for cell in cells.split("|")]
        row = frame.loc[(dataset, method)]
        # Bounds are rounded up.
        assert 0 <= printed[bound_at - 1] - row["bound_gibbs"] < 1e-4
        assert abs(printed[risk_at - 1] - row["gibbs_test"]) <= 0.5e-4
