"""The benchmark's own figures."""

from tests.benchmarks.policies.__main__ import figures, table
from tests.benchmarks.policies.measure import Measured


def test_the_worst_of_the_rounds_is_told() -> None:
    measured = Measured([50, 60, 100], [10, 5, 6], [30, 20, 20], [4, 5, 6], calls=[1, 3, 1], reached=[1000, 999])
    found = figures(measured, 1000)
    assert found == {
        "accounts": 1000,
        "reached": 999,
        "attach_calls": 3,
        "attach": {"median_ms": 60, "worst_ms": 100, "limit_ms": 6, "ratio": 10},
        "preview": {"median_ms": 20, "worst_ms": 30, "limit_ms": 5, "ratio": 4},
    }
    assert "AttachPolicy for each attachment: 3" in table(found)
