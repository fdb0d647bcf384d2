from pathlib import Path

from benches.measure import Cell
from benches.results import Journal

CELL = Cell("http1", 1024, 48, None)


def test_an_interrupted_run_finds_its_samples_again(tmp_path: Path) -> None:
    path = tmp_path / "full.jsonl"
    before = Journal(path, "build-1")
    before.keep("tulle", CELL, 0, {"p50_us": 1.0})
    before.keep("envoy-h2", CELL, 0, {"p50_us": 2.0})
    with path.open("a") as file:
        file.write('\n{"key": "half a li')

    after = Journal(path, "build-1")

    assert after.known("tulle", CELL, 0) == {"p50_us": 1.0}
    assert after.known("tulle", CELL, 1) is None
    after.keep("tulle", CELL, 1, {"p50_us": 3.0})
    assert Journal(path, "build-1").known("tulle", CELL, 1) == {"p50_us": 3.0}


def test_another_build_of_ours_is_measured_again_and_the_peers_are_not(tmp_path: Path) -> None:
    path = tmp_path / "full.jsonl"
    before = Journal(path, "build-1")
    before.keep("tulle", CELL, 0, {"p50_us": 1.0})
    before.keep("envoy-h2", CELL, 0, {"p50_us": 2.0})

    after = Journal(path, "build-2")

    assert after.known("tulle", CELL, 0) is None
    assert after.known("envoy-h2", CELL, 0) == {"p50_us": 2.0}
