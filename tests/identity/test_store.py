import stat
from pathlib import Path

import pytest

from tests.identity.test_rotation import NEW, NEW_ISSUER, STEADY
from tulle.identity.rotation import begin_root, promote
from tulle.identity.store import Store
from tulle.model.errors import SettingError


@pytest.mark.parametrize(
    "state",
    [STEADY, begin_root(STEADY, NEW), promote(begin_root(STEADY, NEW), NEW_ISSUER)],
    ids=lambda s: s.phase,
)
def test_every_phase_survives_a_restart(tmp_path: Path, state: object) -> None:
    store = Store(tmp_path / "identity")
    assert store.load() is None

    store.save(state)  # type: ignore[arg-type]

    assert Store(tmp_path / "identity").load() == state


def test_keys_are_for_their_owner_alone_and_the_bundle_is_for_all(tmp_path: Path) -> None:
    folder = tmp_path / "identity"
    Store(folder).save(STEADY)
    Store(folder).save(STEADY)

    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
    assert modes == {"authority.json": 0o600, "ca-bundle.crt": 0o644}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert (folder / "ca-bundle.crt").read_text() == STEADY.bundle_pem


def test_a_broken_file_is_an_error_and_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "authority.json").write_text("{")

    with pytest.raises(SettingError, match="restore it, or remove it"):
        Store(tmp_path).load()
