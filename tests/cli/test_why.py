"""What `tulle why` takes and gives back."""

import json
from pathlib import Path

import pytest

from tests.explain.test_why import ACCOUNTS, FOR_WEB, SERVER, SHOP
from tulle.cli.main import main


@pytest.fixture
def folder(tmp_path: Path) -> str:
    """Return a folder in which only `web` may use `cart`."""
    (tmp_path / "shop.yaml").write_text(f"{ACCOUNTS}---{SHOP}{SERVER}{FOR_WEB}")
    return str(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--from", "web", "--to", "cart"], 0),
        (["--from", "plain", "--to", "cart"], 1),
        (["--from", "web", "--to", "nothing"], 2),
        (["--from", "web"], 2),
        (["--from", "web", "--to", "cart", "-H", "no field"], 2),
    ],
)
def test_the_exit_code_is_the_answer(folder: str, arguments: list[str], code: int) -> None:
    assert main(["why", *arguments, "-f", folder]) == code


def test_programs_get_the_whole_path(folder: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["why", "--from", "plain", "--to", "cart", "-f", folder, "-o", "json"])

    said = json.loads(capsys.readouterr().out)
    inbound = said["branches"][0]["inbound"][0]
    assert (said["allowed"], inbound["refusal"]["reason"], inbound["server"]["name"]) == (
        False,
        "unauthorized",
        "cart",
    )


def test_a_tapped_request_is_a_question(
    folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {"namespace": "shop", "pod": "web-5f-x", "deployment": "web"}
    event = {
        "source": {"ip": "10.77.0.9", "port": 40000, "metadata": names},
        "destination": {"ip": "10.77.0.8", "port": 8080, "metadata": {}},
        "proxyDirection": "INBOUND",
        "requestInitEvent": {
            "id": {"base": 0, "stream": 0},
            "method": "PUT",
            "scheme": "HTTP",
            "authority": "cart",
            "path": "/items?x=1",
            "headers": [{"name": "host", "valueStr": "cart"}, {"name": "x-staff", "valueStr": "yes"}],
        },
    }
    (tmp_path / "tapped").write_text(f'{{"pod": "shop/web", "watching": true}}\n{json.dumps(event)}\n')

    code = main(["why", "--request", str(tmp_path / "tapped"), "-f", folder, "-o", "json"])

    said = json.loads(capsys.readouterr().out)
    assert code == 0
    assert said["client"]["name"] == "web"
    assert said["asked"] == {
        "kind": "http",
        "method": "PUT",
        "path": "/items?x=1",
        "authority": "cart",
        "headers": [["x-staff", "yes"]],
    }


def test_what_is_no_recorded_request_says_how_to_make_one(
    folder: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "tapped").write_text('{"watching": true}\n')

    assert main(["why", "--request", str(tmp_path / "tapped"), "-f", folder]) == 2
    assert "records no request; make one with: tulle tap" in capsys.readouterr().err
