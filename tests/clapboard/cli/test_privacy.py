"""MODEL_DIR: for its owner alone, or for the group that it was made for."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clapboard.cli.conftest import Main
from tests.support.audio_server import AudioServer
from tests.support.fixtures_label_studio import CHOICES
from tests.support.processes import Installation


def modes(folder: Path) -> dict[str, int]:
    """The permissions of everything in the folder."""
    return {str(path.relative_to(folder)): stat.S_IMODE(path.stat().st_mode) for path in [*folder.rglob("*")]}


@pytest.fixture
def audio() -> Iterator[AudioServer]:
    with AudioServer() as server:
        yield server


@pytest.mark.parametrize("made_for", ["nobody in particular", "everybody", "a group"])
def test_all_that_clapboard_makes_is_for_whom_its_folder_is(tmp_path: Path, audio: AudioServer, made_for: str) -> None:
    state = tmp_path / "house" / "state"
    if made_for != "nobody in particular":
        state.mkdir(parents=True)
        state.chmod(0o755 if made_for == "everybody" else 0o2770)
    with Installation(tmp_path / "house", "mini", allow_private_urls=True) as house:
        house.worker()
        backend = house.serve()
        assert backend.results(CHOICES, [audio.task(1)])[0]
        found = modes(state)
    assert {"clapboard.db", "clapboard.db-wal", "clapboard.db-shm", "audio", "audio/locks", "broker"} <= found.keys()
    assert any(name.endswith(".json") or name.startswith("broker/") for name in found)
    audio_files = [name for name in found if name.startswith("audio/") and len(name) > len("audio/locks/abc.lock")]
    assert audio_files
    in_group = made_for == "a group"
    for name, mode in found.items():
        is_folder = (state / name).is_dir()
        expected = (0o770 if is_folder else 0o660) if in_group else (0o700 if is_folder else 0o600)
        assert mode & 0o777 == expected, (name, oct(mode))
    own = {"nobody in particular": 0o700, "everybody": 0o755, "a group": 0o770}
    assert stat.S_IMODE(state.stat().st_mode) & 0o777 == own[made_for]


def test_doctor_says_that_others_may_look_in(typed: Main, tmp_path: Path) -> None:
    (tmp_path / "state").mkdir(mode=0o755)
    _, said = typed("doctor", "--json")
    assert f"Other users of this machine can read {tmp_path / 'state'}: run `chmod -R o-rwx" in said
    (tmp_path / "state").chmod(0o770)
    _, said = typed("doctor", "--json")
    assert "Other users" not in said


def test_results_in_a_place_of_one_s_own_are_made_as_one_s_umask_says(typed: Main, tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    code, said = typed("data", "build", str(tmp_path / "clips"), "--out", str(tmp_path / "pairs"))
    assert code in (0, 1, 2), said
    (tmp_path / "after").touch()
    assert stat.S_IMODE((tmp_path / "after").stat().st_mode) == 0o644
