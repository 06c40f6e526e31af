"""Tables as Raven Pro, Raven Lite, BirdNET, Audacity and spreadsheets write them, and what is wrong with others."""

from __future__ import annotations

from pathlib import Path

import pytest

from clapboard.errors import EventTableError
from clapboard.event_tables.event_row import EventRow, RowRefused
from clapboard.event_tables.formats import Format, format_of, read_events, write_events

RAVEN_PRO = (
    "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)\tBegin File\tAnnotation\r\n"
    "1\tWaveform 1\t1\t0.500000000\t1.250000000\t\t\trec one.wav\trobin\r\n"
    "1\tSpectrogram 1\t1\t0.500000000\t1.250000000\t1000.0\t5000.0\trec one.wav\t\r\n"
    "2\tSpectrogram 1\t2\t3.000000000\t4.000000000\t900.0\t1200.5\trec one.wav\twren\r\n"
    "2\tWaveform 1\t2\t3.000000000\t4.000000000\t900.0\t1200.5\trec one.wav\twren\r\n"
)
SEVERAL_FILES = (
    "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)\tBegin Path\tBegin File\t"
    "File Offset (s)\tSpecies\n"
    "1\tSpectrogram 1\t1\t10.0\t11.5\t0\t8000\tC:\\sounds\\a.wav\ta.wav\t10.0\towl\n"
    "2\tSpectrogram 1\t1\t62.1\t63.0\t0\t8000\tC:\\sounds\\b.wav\tb.wav\t2.1\towl\n"
)
BIRDNET = (
    "Selection\tView\tChannel\tBegin Time (s)\tEnd Time (s)\tLow Freq (Hz)\tHigh Freq (Hz)\tCommon Name\t"
    "Species Code\tConfidence\tBegin Path\tFile Offset (s)\n"
    "1\tSpectrogram 1\t1\t0\t3.0\t0\t15000\tHouse Finch\thoufin\t0.6273\t/rec/soundscape.wav\t0\n"
    "2\tSpectrogram 1\t1\t9.0\t12.0\t0\t15000\tBlue Jay\tblujay\t0.1502\t/rec/soundscape.wav\t9.0\n"
)


def rows_of(folder: Path, content: str | bytes, name: str = "rec.txt", **options: object) -> list[EventRow]:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return list(read_events(path, **options))  # type: ignore[arg-type]


def test_a_selection_in_two_views_is_one_event(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, RAVEN_PRO)
    assert rows == [
        EventRow("rec one.wav", 0.5, 1.25, "robin", channel=0, low_hz=1000.0, high_hz=5000.0),
        EventRow("rec one.wav", 3.0, 4.0, "wren", channel=1, low_hz=900.0, high_hz=1200.5),
    ]


def test_views_of_a_selection_need_not_be_neighbours(tmp_path: Path) -> None:
    header, first, second, third, fourth = RAVEN_PRO.splitlines(keepends=True)
    rows = rows_of(tmp_path, header + first + third + second + fourth)
    assert [(row.label, row.start_s) for row in rows] == [("robin", 0.5), ("wren", 3.0)]


def test_times_in_a_table_of_several_files_are_each_files_own(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, SEVERAL_FILES)
    assert [(row.recording, row.start_s, row.end_s) for row in rows] == [
        ("C:\\sounds\\a.wav", 10.0, 11.5),
        ("C:\\sounds\\b.wav", 2.1, 3.0),
    ]


def test_birdnets_table_has_scores(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, BIRDNET, "soundscape.BirdNET.selection.table.txt")
    assert [(row.label, row.score) for row in rows] == [("House Finch", 0.6273), ("Blue Jay", 0.1502)]
    assert rows[1].recording == "/rec/soundscape.wav"
    assert rows_of(tmp_path, BIRDNET, label_column="Species Code")[0].label == "houfin"


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "cp1252"])
def test_decimal_commas_marks_and_code_pages(tmp_path: Path, encoding: str) -> None:
    table = "Begin Time (s)\tEnd Time (s)\tAnnotation\r\n0,5\t1,25\tGrünspecht\r\n\r\n2\t3\t\r\n"
    refused: list[RowRefused] = []
    rows = rows_of(tmp_path, table.encode(encoding), "rec.Table.1.selections.txt", on_refused=refused.append)
    assert rows == [EventRow("rec", 0.5, 1.25, "Grünspecht")]
    assert [str(error) for error in refused] == [
        "rec.Table.1.selections.txt, line 4: the row has no label: write one, or delete the row."
    ]


def test_a_line_with_more_cells_than_the_header_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RowRefused, match=r"line 2: the line has more cells than the header: take the tabs out"):
        rows_of(tmp_path, "Begin Time (s)\tEnd Time (s)\tAnnotation\n1\t2\ta\tb\n")


def test_delta_time_serves_where_an_end_is_missing(tmp_path: Path) -> None:
    assert rows_of(tmp_path, "Begin Time (s)\tDelta Time (s)\tTag\n1.5\t0.5\tx\n")[0].end_s == 2.0


def test_a_raven_table_without_labels_names_the_option(tmp_path: Path) -> None:
    with pytest.raises(EventTableError, match=r"line 1: no column has the labels: name it with --label-column; there"):
        rows_of(tmp_path, "Selection\tBegin Time (s)\tEnd Time (s)\n1\t0\t1\n")


def test_audacity_labels_with_points_frequencies_and_tabs(tmp_path: Path) -> None:
    content = (
        "0.500000\t1.250000\tdog\n\\\t100.000000\t2000.500000\n2.0\t2.0\tpoint\n3.5\told point\n"
        "4,25\t5,5\tcomma\n\\\t-1.000000\t300.000000\n\\\tof a later version\n6\t7\twith\ta tab\n"
    )
    assert rows_of(tmp_path, content, "yard.wav.labels.txt") == [
        EventRow("yard.wav", 0.5, 1.25, "dog", low_hz=100.0, high_hz=2000.5),
        EventRow("yard.wav", 2.0, 2.0, "point"),
        EventRow("yard.wav", 3.5, 3.5, "old point"),
        EventRow("yard.wav", 4.25, 5.5, "comma", high_hz=300.0),
        EventRow("yard.wav", 6.0, 7.0, "with a tab"),
    ]


def test_an_empty_track_has_no_events(tmp_path: Path) -> None:
    assert rows_of(tmp_path, "", "yard.txt") == []


def test_csv_of_a_german_spreadsheet(tmp_path: Path) -> None:
    content = 'sep=;\r\nPath;Start (s);End (s);Label;Score\r\n"a;b.wav";0,5;1,5;Hund;0,75\r\n;;;;\r\nc.wav;;;Regen;\r\n'
    rows = rows_of(tmp_path, content.encode("cp1252"), "events.csv")
    assert rows == [EventRow("a;b.wav", 0.5, 1.5, "Hund", 0.75), EventRow("c.wav", 0.0, 0.0, "Regen", whole=True)]


def test_dcase_headings_are_understood(tmp_path: Path) -> None:
    rows = rows_of(tmp_path, "filename\tonset\toffset\tevent_label\na.wav\t0.1\t0.2\tDog\n", "weak.tsv")
    assert rows == [EventRow("a.wav", 0.1, 0.2, "Dog")]


@pytest.mark.parametrize(
    ("start", "end", "label", "reason"),
    [
        ("nan", "1", "x", "the start “nan” isn't a number"),
        ("0", "inf", "x", "the end “inf” isn't a number"),
        ("0", "1e999", "x", "isn't a number"),
        ("1_0", "20", "x", "the start “1_0” isn't a number"),
        ('"1.000,5"', "2000", "x", "the start “1.000,5” isn't a number"),
        ("0,5", "2", "x", "the row has 5 cells, but the header 4: put quotation marks around a cell with a comma"),
        ("-1", "2", "x", "the start -1 is negative"),
        ("3", "2", "x", "the end 2 s is before the start 3 s"),
        ("0", "1e12", "x", "the end 1e12 is above 1e+08"),
        ("0", "", "x", "the row has no end"),
        ("0", "1", "", "the row has no label"),
        ("0", "1", "a\x00b", "the label “a\\x00b” has control characters"),
        ("0", "1", "a\x1b[31m", "has control characters"),
        ("0", "1", "x" * 2000, "is longer than 1000 characters"),
        ("9" * 5000, "1", "x", "isn't a number"),
    ],
)
def test_a_hostile_cell_is_refused_in_a_sentence(tmp_path: Path, start: str, end: str, label: str, reason: str) -> None:
    content = f"path,start_s,end_s,label\na.wav,{start},{end},{label}\nb.wav,0,1,good\n"
    with pytest.raises(RowRefused) as refused:
        rows_of(tmp_path, content, "e.csv")
    sentence = str(refused.value)
    assert sentence.startswith("e.csv, line 2: ")
    assert reason in sentence
    assert sentence.isprintable()
    assert len(sentence) < 200
    told: list[RowRefused] = []
    assert [row.label for row in rows_of(tmp_path, content, "e.csv", on_refused=told.append)] == ["good"]
    assert len(told) == 1


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    for name, content, reason in (
        ("a.wav", b"RIFF\x00\x00\x8d\x81WAVE", "isn't text"),
        ("a.csv", b"hello\n", "give --format"),
        ("a.csv", b"path,start_s,end_s,label\n" + b"x" * 200_000, "line 2: the line is longer than"),
        ("a.csv", b'path,start_s,end_s,label\n"' + b"x\n" * 200_000, "it isn't CSV"),
    ):
        with pytest.raises(EventTableError, match=reason):
            rows_of(tmp_path, content, name)
    with pytest.raises(EventTableError, match=r"gone\.csv can't be read \(No such file or directory\): check the path"):
        list(read_events(tmp_path / "gone.csv"))
    with pytest.raises(EventTableError, match=r"can't be read \(Is a directory\)"):
        list(read_events(tmp_path, Format.CSV))


def test_a_formula_is_written_as_text_and_read_back(tmp_path: Path) -> None:
    row = EventRow("=cmd|' /C calc'!A0", 0.0, 1.0, "+1", annotator="@x", source="'-2")
    assert write_events(tmp_path / "e.csv", [row], Format.CSV) == 1
    cells = (tmp_path / "e.csv").read_text().splitlines()[1].split(",")
    assert not [cell for cell in cells if cell.lstrip('"')[:1] in tuple("=+-@")]
    assert list(read_events(tmp_path / "e.csv")) == [row]


def test_a_track_of_several_recordings_is_refused_and_leaves_no_file(tmp_path: Path) -> None:
    rows = [EventRow("a.wav", 0.0, 1.0, "x"), EventRow("b.wav", 0.0, 1.0, "x")]
    with pytest.raises(EventTableError, match="write a table for each"):
        write_events(tmp_path / "t.txt", rows, Format.AUDACITY)
    assert list(tmp_path.iterdir()) == []


def test_formats_are_told_by_their_first_line(tmp_path: Path) -> None:
    for content, file_format in ((RAVEN_PRO, Format.RAVEN), ("0\t1\tx\n", Format.AUDACITY), ("", Format.AUDACITY)):
        (tmp_path / "t.txt").write_text(content)
        assert format_of(tmp_path / "t.txt") is file_format
