"""`clapboard import` and `clapboard export` with wrong options; `tests/e2e/test_event_tables.py` has the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.clapboard.cli.conftest import Main


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (("import", "gone.csv"), 2, "gone.csv can't be read (No such file or directory): check the path."),
        (("import", "gone.csv", "--format", "xml"), 2, "There is no format “xml”: choose one of raven, audacity, csv,"),
        (("import", "e.csv", "--uri", "s3://b/x"), 2, "--uri has no {name} or {path} in it"),
        (("import", "e.csv", "--uri", "{name}", "--upload", "."), 2, "choose one of --upload and --uri."),
        (("import", "e.csv"), 3, "LABEL_STUDIO_API_KEY is not set"),
        (("export", "--out", "x", "--what", "all"), 2, "--what is one of consensus, suggestions."),
        (("export", "--out", "x", "--annotators", "all"), 2, "--annotators is one of id, name, none."),
        (("export", "--out", "folder"), 2, "--format csv writes a file, and folder is none: give another --out."),
        (("export", "--out", "e.csv", "--format", "hf"), 2, "--format hf writes a folder, and e.csv is none"),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(
    typed: Main, tmp_path: Path, arguments: tuple[str, ...], code: int, sentence: str
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "e.csv").write_text("path,start_s,end_s,label\na.wav,0,1,x\n")
    ended, written = typed(*arguments, "--project", "1")
    assert (ended, sentence in " ".join(written.split())) == (code, True), written
