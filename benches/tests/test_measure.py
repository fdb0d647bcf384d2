from typing import Any

from benches import measure, sets
from benches.measure import Cell


def facts(**changed: float) -> dict[str, Any]:
    return {
        "requests_per_s": 1000.0,
        "bytes_per_s": 1.0,
        "p50_us": 100.0,
        "p90_us": 200.0,
        "p99_us": 300.0,
        "p999_us": 400.0,
        "errors": 0,
        "cpu_us_per_request": 50.0,
        "origin_cpu_us_per_request": 10.0,
        "rss_mib": 8.0,
        "foreign_cores": 0.0,
        "stolen_cores": 0.0,
        **changed,
    }


def test_a_row_is_the_median_of_its_rounds_and_the_sum_of_their_errors() -> None:
    cell = Cell("http1", 1024, 48, None)
    samples = [
        facts(cpu_us_per_request=70.0, p99_us=900.0, errors=1),
        facts(cpu_us_per_request=50.0, foreign_cores=0.3),
        facts(cpu_us_per_request=60.0),
    ]

    made = measure.row("tulle", cell, samples)

    assert made["cpu_us_per_request"] == 60.0
    assert (made["p99_us"], made["p99_range_us"]) == (300.0, [300.0, 900.0])
    assert (made["errors"], made["foreign_cores"], made["rounds"]) == (1, 0.3, 3)
    assert (made["topology"], made["rate"], made["body_bytes"]) == ("tulle", None, 1024)


def test_a_cell_above_two_gigabits_is_left_out_and_a_saturated_one_is_not() -> None:
    assert not Cell("http1", 2**20, 16, 500).within_reach
    assert Cell("http1", 64 * 2**10, 16, 2_000).within_reach
    assert Cell("http1", 2**20, 16, None).within_reach


def test_the_full_set_is_the_matrix_without_what_is_out_of_reach() -> None:
    cells = [cell for visit in sets.full() for cell in visit.cells if cell.keepalive]

    # 3 protocols × 4 bodies × 4 numbers of connections × 3 rates, less 1 MiB at both rates.
    assert len(cells) == 144 - 3 * 4 * 2
    assert len(set(cells)) == len(cells)


def test_every_visit_keeps_to_one_protocol() -> None:
    for chosen in sets.SETS.values():
        for visit in chosen.visits:
            assert {cell.protocol for cell in visit.cells} == {visit.protocol}
