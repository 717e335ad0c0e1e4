"""The capacity page says what its arithmetic says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from deploy import capacity

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "deploy" / "CAPACITY.md").read_text()


@pytest.mark.parametrize("table", [capacity.costs, capacity.replicas, capacity.thousand])
def test_the_page_has_the_tables_as_they_come_out(table: Callable[[], str]) -> None:
    assert table() in PAGE


def test_what_the_text_says_of_the_plan_is_what_comes_out() -> None:
    plan = capacity.Plan()
    assert f"eight\n  GPUs a node do not bring {8 * 23.2:.0f} cores along" in PAGE
    assert plan.cell_pods * plan.pod_workers == 87
    assert round(plan.pod_images / plan.pod_workers, -2) == 700
    assert round(1 / capacity.LOOP_S, -1) == 1850
    on_gpus, zen4, amx = (
        capacity._million_on_gpus(plan),
        capacity.MEASURED[0].hours * capacity.EXAMPLE_PRICE,
        capacity.derived()[0].hours * capacity.EXAMPLE_PRICE,
    )
    assert 0.55 < on_gpus / zen4 < 0.65
    assert on_gpus > amx
