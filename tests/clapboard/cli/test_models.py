"""`clapboard models`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clapboard.errors import ClapboardError, NotFoundError
from clapboard.labels.label_config import parse_label_config
from clapboard.queue.celery_app import LEARN
from clapboard.settings import Settings
from clapboard.store import Store
from clapboard.store.catalog import Encoder
from clapboard.store.trials import Answer, Kind, State
from clapboard.store.trials import Trial as HeldTrial
from clapboard.store.versions import Version
from clapboard.suggest.prediction import model_version, space_id
from tests.clapboard.cli.conftest import Clapboard, lines
from tests.support.fake_label_studio import CHOICES
from training.gate import Rules, Trial, judge

PROJECT = 7
BASE = "mini-00.head-aa.s1"
TUNED = "mini-tuned-3-11.head-bb.s1"
REFUSED = "mini-tuned-9-22.head-cc.s1"


def verdict(*, right: int, of: int = 20) -> dict[str, Any]:
    """The gate's word on a candidate that gets so many test clips right, where the one in service gets half."""
    truth = np.zeros((of, 2), bool)
    truth[np.arange(of), np.arange(of) % 2] = True

    def scores(num_right: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        good = np.arange(of) < num_right
        return np.where(truth == good[:, None], 0.9, 0.1).astype(np.float32)

    groups = [str(number) for number in range(of)]
    trial = Trial("clip", ("dog", "rain"), False, groups, truth, scores(right), scores(of // 2), scores(of // 2))
    return judge([trial], Rules(num_exchanges=2000)).to_json()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(MODEL_DIR=tmp_path / "state")


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    """A project whose finetuned version serves, with one that was refused after it."""
    store = Store.open(settings)
    store.catalog.announce_encoder(Encoder("mini", "00" * 6, "float32", 4, 10.0))
    store.catalog.put_project(PROJECT, CHOICES, BASE)
    kept = [
        Version(PROJECT, BASE, "mini", "00", "head-aa", "s1", manifest={"kind": "head", "num_labels": 12}),
        Version(PROJECT, TUNED, "models/7/mini-tuned-3", "11", "head-bb", "s1", manifest=_finetuned(right=19)),
        Version(PROJECT, REFUSED, "models/7/mini-tuned-9", "22", "head-cc", "s1", manifest=_finetuned(right=10)),
    ]
    for version in kept:
        store.versions.put(version)
        if version.encoder.startswith("models/"):
            folder = settings.model_dir / version.encoder
            folder.mkdir(parents=True)
            (folder / "manifest.json").write_text("{}")
    store.versions.promote(PROJECT, BASE)
    store.versions.promote(PROJECT, TUNED)
    yield store
    store.close()


def _finetuned(*, right: int) -> dict[str, Any]:
    return {"kind": "finetuned", "clips": {"learnt": 40, "test": 20}, "verdict": verdict(right=right)}


class TestModels:
    def test_list_says_what_became_of_each(self, clapboard: Clapboard, store: Store) -> None:
        (rows,) = lines(clapboard("models", "list", "--project", "7", "--json"))
        assert [(row["model_version"], row["state"]) for row in rows] == [
            (BASE, "earlier"),
            (TUNED, "promoted"),
            (REFUSED, "refused"),
        ]
        assert [row["accuracy"] for row in rows] == [None, 0.95, 0.5]
        assert [row["num_labels"] for row in rows] == [12, 40, 40]
        assert "0.950" in clapboard("models", "list", "--project", "7").stdout

    def test_show_has_the_verdict_and_each_class(self, clapboard: Clapboard, store: Store) -> None:
        shown = clapboard("models", "show", "--project", "7", REFUSED).stdout
        assert "Not promoted" in shown
        assert "how            It was judged on 20 held-out clips, which the candidate itself answered." in shown
        assert "No candidate was judged on the same evidence before, so at most 0.025 is allowed" in " ".join(
            shown.split()
        )
        assert "rain" in shown
        (whole,) = lines(clapboard("models", "show", "--project", "7", "mini-tuned-3", "--json"))
        assert whole["manifest"]["verdict"]["promote"] is True

    def test_show_tells_how_trials_stand(self, clapboard: Clapboard, store: Store) -> None:
        ended = store.trials.begin(HeldTrial(PROJECT, Kind.HEAD, BASE, "mini-00.zero-shot.s1", 60, 0.05))
        store.trials.end(ended, State.PROMOTED, "Surely better.")
        begun = store.trials.begin(HeldTrial(PROJECT, Kind.HEAD, "mini-00.head-dd.s1", BASE, 60, 0.05))
        store.trials.put_answers(begun, [Answer(1, BASE, 0.5, 1.0), Answer(2, BASE, -0.25, 0.0)], 0.0)
        shown = " ".join(clapboard("models", "show", "--project", "7", BASE).stdout.split())
        assert "trial head, promoted: Surely better." in shown
        assert (
            f"trial head, open: mini-00.head-dd.s1 and the heads since against {BASE}, 2 of 60 labels, "
            "nearer to them by +0.125 each"
        ) in shown
        (whole,) = lines(clapboard("models", "show", "--project", "7", BASE, "--json"))
        assert [(trial["state"], trial["num_labels"], trial["lead"]) for trial in whole["trials"]] == [
            ("promoted", 0, None),
            ("open", 2, 0.125),
        ]

    def test_compare_sets_two_judged_versions_side_by_side(self, clapboard: Clapboard, store: Store) -> None:
        (told,) = lines(clapboard("models", "compare", "--project", "7", TUNED, REFUSED, "--json"))
        accuracy = next(row for row in told["figures"] if row["figure"] == "accuracy")
        assert (accuracy["a"], accuracy["b"]) == (0.95, 0.5)
        never_judged = clapboard("models", "compare", "--project", "7", TUNED, BASE)
        assert isinstance(never_judged.exception, ClapboardError)
        assert "never judged" in str(never_judged.exception)

    def test_a_name_that_fits_several_versions_or_none_is_refused(self, clapboard: Clapboard, store: Store) -> None:
        for name, why in (("mini-tuned", "several versions"), ("other", "no version")):
            refused = clapboard("models", "show", "--project", "7", name)
            assert isinstance(refused.exception, NotFoundError)
            assert why in str(refused.exception)

    def test_zero_shot_is_listed_and_shown_where_it_serves(self, clapboard: Clapboard, store: Store) -> None:
        space = parse_label_config(CHOICES)
        encoder = store.catalog.encoder("mini")
        assert encoder is not None
        named = model_version(encoder, space)
        store.catalog.put_project(8, CHOICES, named)
        for chosen in ({"model": "mini"}, {}):  # without a setting, by the name of what has answered so far
            (rows,) = lines(clapboard("models", "list", "--project", "8", "--json", **chosen))
            assert [(row["model_version"], row["kind"], row["state"], row["serves"]) for row in rows] == [
                (named, "zero-shot", "serving", True)
            ]
        table = clapboard("models", "list", "--project", "8", model="mini").stdout
        assert named in table
        assert "Zero-shot serves: suggestions come from the labels' texts only." in table
        shown = clapboard("models", "show", "--project", "8", "mini-", model="mini").stdout
        assert re.findall(r"(?m)^(?:model_version|serves) +(.*)$", shown) == [named, "yes"]

    def test_the_promoted_version_serves_until_its_labels_change(self, clapboard: Clapboard, store: Store) -> None:
        tuned = Encoder("models/7/mini-tuned-3", "11", "float32", 4, 10.0)
        store.catalog.announce_encoder(tuned)
        space = space_id(parse_label_config(CHOICES))
        promoted = Version(PROJECT, "mini-tuned-3-11.head-bb.s2", tuned.model, "11", "head-bb", space, manifest={})
        promoted = replace(promoted, model_version=model_version(tuned, parse_label_config(CHOICES), "head-bb"))
        store.versions.put(promoted)
        store.versions.promote(PROJECT, promoted.model_version)
        (rows,) = lines(clapboard("models", "list", "--project", "7", "--json", model="mini"))
        assert [row["model_version"] for row in rows if row["serves"]] == [promoted.model_version]
        changed = CHOICES.replace("dog", "wolf")
        store.catalog.put_project(PROJECT, changed, "v")
        (rows,) = lines(clapboard("models", "list", "--project", "7", "--json", model="mini"))
        by_texts = model_version(tuned, parse_label_config(changed))
        assert [(row["model_version"], row["state"]) for row in rows if row["serves"]] == [(by_texts, "serving")]
        assert [row["state"] for row in rows if row["model_version"] == promoted.model_version] == ["promoted"]

    def test_before_any_worker_nobody_knows_what_serves(self, clapboard: Clapboard, store: Store) -> None:
        store.catalog.put_project(9, CHOICES, "v")
        done = clapboard("models", "list", "--project", "9", model="laion/other")
        assert done.exit_code == 0
        assert "isn't known until a worker has loaded laion/other" in done.stdout

    def test_a_removed_checkpoint_is_shown_as_such(
        self, clapboard: Clapboard, store: Store, settings: Settings
    ) -> None:
        (settings.model_dir / "models/7/mini-tuned-9/manifest.json").unlink()
        (rows,) = lines(clapboard("models", "list", "--project", "7", "--json"))
        assert rows[-1]["state"] == "removed"

    def test_promote_queues_the_version_named(self, clapboard: Clapboard, store: Store) -> None:
        (told,) = lines(clapboard("models", "promote", "--project", "7", "mini-tuned-9", "--no-wait", "--json"))
        job = store.jobs.get(told["job"])
        assert (job.queue, job.kind, job.project, job.model_version) == (LEARN, "promote", PROJECT, REFUSED)

    def test_rollback_goes_to_the_encoder_before(self, clapboard: Clapboard, store: Store) -> None:
        (told,) = lines(clapboard("models", "rollback", "--project", "7", "--no-wait", "--json"))
        assert store.jobs.get(told["job"]).model_version == BASE

    def test_rollback_without_an_encoder_before_goes_to_zero_shot(self, clapboard: Clapboard, store: Store) -> None:
        store.versions.forget(PROJECT, [BASE])
        (told,) = lines(clapboard("models", "rollback", "--project", "7", "--no-wait", "--json", model="mini"))
        target = store.versions.get(PROJECT, store.jobs.get(told["job"]).model_version)
        assert (target.encoder, target.head) == ("mini", "zero-shot")

    def test_nothing_promoted_means_nothing_to_go_back_from(self, clapboard: Clapboard, store: Store) -> None:
        store.catalog.put_project(8, CHOICES, "v")
        refused = clapboard("models", "rollback", "--project", "8", "--no-wait")
        assert isinstance(refused.exception, NotFoundError)

    def test_what_somebody_chose_is_pinned_and_shown_as_such_until_it_is_let_go(
        self, clapboard: Clapboard, store: Store
    ) -> None:
        clapboard("models", "rollback", "--project", "7", "--no-wait")
        (rows,) = lines(clapboard("models", "list", "--project", "7", "--json"))
        assert [row["model_version"] for row in rows if row["pinned"]] == [BASE]
        shown = clapboard("models", "list", "--project", "7").stdout
        assert "earlier, pinned" in shown
        assert f"{BASE} is pinned: nothing replaces it until somebody adds a label" in shown
        (told,) = lines(clapboard("models", "unpin", "--project", "7", "--json"))
        assert told == {"project": PROJECT, "unpinned": BASE}
        assert store.versions.pinned(PROJECT) == ""
        assert [job.kind for job in store.jobs.newest()] == ["learn", "promote"]
        assert "nothing was pinned" in clapboard("models", "unpin", "--project", "7").stdout
