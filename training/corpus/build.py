"""Sources → a data set: heard, judged, joined where two are one sound, shuffled, split by group, and written.

The sounds wait on disk, as FLAC beside the data set to be; of each sample only its texts stay in memory. All is made in
OUT.building and renamed last, so that an interrupted build leaves nothing at OUT and is simply run again.
"""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from clapboard import __version__
from clapboard.errors import TrainingError
from training.corpus.building import building_folder, require_free
from training.corpus.filters import Reason, Rules
from training.corpus.heard import Ear, Heard
from training.corpus.language import LanguageJudge
from training.corpus.manifest import (
    SPLITS,
    Manifest,
    ReadSource,
    Shard,
    Split,
    Unreadable,
    write_manifest,
)
from training.corpus.pairs import as_text, unique, unique_tags
from training.corpus.shards import Kept, write_shards
from training.corpus.sources import Source


@dataclass(frozen=True)
class Plan:
    """How a data set is built. With a `validation_share` above 0 it has the two folders train and validation."""

    rules: Rules = field(default_factory=Rules)
    seed: int = 0
    samples_per_shard: int = 512
    validation_share: float = 0.0
    threads: int = 2


@dataclass
class _Found:
    """What the sources held."""

    sources: list[ReadSource] = field(default_factory=list)
    dropped: Counter[Reason] = field(default_factory=Counter)
    dropped_captions: Counter[Reason] = field(default_factory=Counter)
    unreadable: list[Unreadable] = field(default_factory=list)
    kept: dict[str, Kept] = field(default_factory=dict)  # by sound

    @property
    def num_pairs(self) -> int:
        """Kept or not."""
        return sum(source.pairs for source in self.sources)


def build(
    sources: Sequence[Source],
    out: Path,
    plan: Plan,
    *,
    on_pair: Callable[[], None] = lambda: None,
    on_sample: Callable[[int], None] = lambda _: None,
) -> list[Manifest]:
    """The manifests of the data set in `out`: one, or those of its two splits.

    `on_pair` hears of each pair that was judged, `on_sample` of each sample written and how many there are. Raises
    `TrainingError` if `out` holds something or lies in a source, a source can't be read, or nothing is left, and what
    sources raise.
    """
    out = out.resolve()
    require_free(out)
    _require_outside(out, sources)
    with building_folder(out) as building:
        sounds = building / "sounds"
        sounds.mkdir()
        found = _hear(sources, sounds, plan, on_pair)
        manifests = _write(building, found, plan, on_sample)
        shutil.rmtree(sounds)
    return manifests


def _require_outside(out: Path, sources: Sequence[Source]) -> None:
    """Else a build would hear what it writes, and the next one all that this one wrote."""
    for source in sources:
        folder = Path(source.given)
        if folder.is_dir() and out.is_relative_to(folder.resolve()):
            raise TrainingError(f"{out} lies in the source {source.given}: name a folder outside it.")


def _hear(sources: Sequence[Source], sounds: Path, plan: Plan, on_pair: Callable[[], None]) -> _Found:
    languages = plan.rules.languages
    is_wanted = LanguageJudge(languages).accepts if languages else lambda _: True
    ear = Ear(plan.rules, is_wanted, sounds)
    found = _Found()
    groups = _Groups()
    held_back: set[str] = set()
    for source in sources:
        num_pairs = 0
        for heard in ear.listen(source.pairs(), threads=plan.threads):
            num_pairs += 1
            found.dropped_captions += heard.dropped_captions
            if heard.fault is None:
                _keep(found, groups, heard, source)
            else:
                found.dropped[heard.fault] += 1
            if heard.fault is Reason.UNREADABLE:
                found.unreadable.append(
                    Unreadable(name=f"{as_text(source.name)}: {heard.pair.name}", error=heard.error)
                )
            if heard.fault is Reason.SET_ASIDE:
                held_back.add(heard.sha256)
            on_pair()
        found.sources.append(ReadSource(given=as_text(source.given), kind=source.kind, pairs=num_pairs))
    for sha256 in held_back & found.kept.keys():
        found.kept.pop(sha256).file.unlink()
        found.dropped[Reason.SET_ASIDE] += 1
    for sample in found.kept.values():
        sample.group = groups.of(sample.group)
    return found


def _keep(found: _Found, groups: _Groups, heard: Heard, source: Source) -> None:
    """Keeps the sample, or joins it with the one of the same sound."""
    assert heard.file is not None
    pair = heard.pair
    first = found.kept.get(heard.sha256)
    if first is None:
        about = {"source": f"{as_text(source.name)}: {pair.name}"} | dict(pair.about)
        texts = unique(pair.captions), unique_tags(pair.tags)
        found.kept[heard.sha256] = Kept(heard.file, heard.sha256, heard.duration_s, *texts, pair.group, about)
        return
    found.dropped[Reason.DUPLICATE] += 1
    heard.file.unlink()
    first.captions = unique([*first.captions, *pair.captions])
    first.tags = unique_tags([*first.tags, *pair.tags])
    if first.group and pair.group:
        groups.join(first.group, pair.group)
    first.group = first.group or pair.group


class _Groups:
    """Groups that share a sound are one."""

    def __init__(self) -> None:
        self._joined: dict[str, str] = {}

    def of(self, group: str) -> str:
        while group in self._joined:
            group = self._joined[group]
        return group

    def join(self, first: str, second: str) -> None:
        kept, other = self.of(first), self.of(second)
        if kept != other:
            self._joined[other] = kept


def _write(building: Path, found: _Found, plan: Plan, on_sample: Callable[[int], None]) -> list[Manifest]:
    # By what they sound like, in an order that the seed decides: the order of the sources says nothing.
    samples = sorted(found.kept.values(), key=lambda sample: _drawn(plan.seed, sample.sha256))
    if not samples:
        reasons = ", ".join(f"{number} {reason}" for reason, number in sorted(found.dropped.items()))
        first = "".join(f" The first that can't be read: {one.name}: {one.error}" for one in found.unreadable[:1])
        raise TrainingError(
            f"Nothing is left of {found.num_pairs} pairs ({reasons or 'the sources are empty'}).{first}"
        )
    manifests: dict[Split, Manifest] = {}
    for split, part in _split(samples, plan).items():
        shards = write_shards(building / split, part, plan.samples_per_shard, lambda: on_sample(len(samples)))
        manifests[split] = _manifest(split, part, shards, found, plan)
    for split, manifest in manifests.items():
        write_manifest(building / split, manifest)
    return list(manifests.values())


def _manifest(split: Split, samples: Sequence[Kept], shards: list[Shard], found: _Found, plan: Plan) -> Manifest:
    settings = asdict(plan)
    del settings["threads"]  # nothing follows from them
    return Manifest(
        clapboard=__version__,
        split=split,
        samples=len(samples),
        captions=sum(len(sample.captions) for sample in samples),
        tags=sum(len(sample.tags) for sample in samples),
        duration_s=round(sum(sample.duration_s for sample in samples), 3),
        shards=tuple(shards),
        found=found.num_pairs,
        dropped=_counts(found.dropped),
        dropped_captions=_counts(found.dropped_captions),
        unreadable=tuple(found.unreadable),
        sources=tuple(found.sources),
        settings=settings.pop("rules") | settings,
    )


def _counts(dropped: Counter[Reason]) -> dict[str, int]:
    return {str(reason): dropped[reason] for reason in Reason if dropped[reason]}


def _split(samples: Sequence[Kept], plan: Plan) -> dict[Split, list[Kept]]:
    """The samples by the folder that they go to, their order kept; whole groups are drawn for validation."""
    if not plan.validation_share:
        return {"": list(samples)}
    sizes = Counter(sample.group or sample.key for sample in samples)
    room = round(plan.validation_share * len(samples))
    drawn = set()
    for group in sorted(sizes, key=lambda group: _drawn(plan.seed, f"validation:{group}")):
        if sizes[group] <= room:
            drawn.add(group)
            room -= sizes[group]
    split: dict[Split, list[Kept]] = {name: [] for name in SPLITS}
    for sample in samples:
        split[SPLITS[(sample.group or sample.key) in drawn]].append(sample)
    if not all(split.values()):
        raise TrainingError(
            f"A validation share of {plan.validation_share:g} leaves a split empty: {len(samples)} samples are in "
            f"{len(sizes)} groups, none of which is divided. Choose another share, or name smaller groups."
        )
    return split


def _drawn(seed: int, name: str) -> bytes:
    """A draw that follows from the seed and the name alone, the same on every machine and for ever."""
    return hashlib.sha256(f"{seed}:{name}".encode()).digest()
