"""Builds a data set: decodes and filters the sources' pairs, merges duplicates, shuffles, splits by group, and writes.

Meanwhile the sounds lie on disk as FLAC, and only the texts are in memory. Everything is made in OUT.building, which is
renamed last: an interrupted build leaves nothing at OUT and is simply run again.
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
from clapboard.plurals import counted
from training.corpus.build_folder import building_folder, require_free
from training.corpus.decoding import DecodedPair, PairDecoder
from training.corpus.filters import Reason, Rules
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
from training.corpus.shards import KeptSample, write_shards
from training.corpus.sources import Source


@dataclass(frozen=True)
class Plan:
    """How to build a data set. A `validation_share` above 0 gives two folders, train and validation."""

    rules: Rules = field(default_factory=Rules)
    seed: int = 0
    samples_per_shard: int = 512
    validation_share: float = 0.0
    threads: int = 2


@dataclass
class _Collection:
    """What has been read from the sources so far."""

    sources: list[ReadSource] = field(default_factory=list)
    dropped: Counter[Reason] = field(default_factory=Counter)
    dropped_captions: Counter[Reason] = field(default_factory=Counter)
    unreadable: list[Unreadable] = field(default_factory=list)
    kept: dict[str, KeptSample] = field(default_factory=dict)  # by sound

    @property
    def num_pairs(self) -> int:
        """All pairs read, whether kept or not."""
        return sum(source.pairs for source in self.sources)


def build(
    sources: Sequence[Source],
    out: Path,
    plan: Plan,
    *,
    on_pair: Callable[[], None] = lambda: None,
    on_sample: Callable[[int], None] = lambda _: None,
) -> list[Manifest]:
    """Builds the data set in `out` and returns its manifest, or those of its two splits.

    `on_pair` is called after each pair, and `on_sample` after each written sample with the number of samples. Raises
    `TrainingError` if `out` isn't empty or lies in a source, a source can't be read, or no sample is left, and whatever
    the sources raise.
    """
    out = out.resolve()
    require_free(out)
    _require_outside(out, sources)
    with building_folder(out) as building:
        sounds = building / "sounds"
        sounds.mkdir()
        collection = _collect(sources, sounds, plan, on_pair)
        manifests = _write(building, collection, plan, on_sample)
        shutil.rmtree(sounds)
    return manifests


def _require_outside(out: Path, sources: Sequence[Source]) -> None:
    """Raises `TrainingError` if `out` lies in a source, since a build would then read what it writes."""
    for source in sources:
        folder = Path(source.given)
        if folder.is_dir() and out.is_relative_to(folder.resolve()):
            raise TrainingError(f"{out} lies in the source {source.given}: name a folder outside it.")


def _collect(sources: Sequence[Source], sounds: Path, plan: Plan, on_pair: Callable[[], None]) -> _Collection:
    """Decodes and filters all pairs; the kept sounds are written to the folder `sounds`."""
    languages = plan.rules.languages
    is_wanted = LanguageJudge(languages).accepts if languages else lambda _: True
    decoder = PairDecoder(plan.rules, is_wanted, sounds)
    collection = _Collection()
    groups = _Groups()
    held_out_sounds: set[str] = set()
    for source in sources:
        num_pairs = 0
        for decoded in decoder.decode(source.pairs(), threads=plan.threads):
            num_pairs += 1
            collection.dropped_captions += decoded.dropped_captions
            if decoded.fault is None:
                _keep(collection, groups, decoded, source)
            else:
                collection.dropped[decoded.fault] += 1
            if decoded.fault is Reason.UNREADABLE:
                collection.unreadable.append(
                    Unreadable(name=f"{as_text(source.name)}: {decoded.pair.name}", error=decoded.error)
                )
            if decoded.fault is Reason.HELD_OUT:
                held_out_sounds.add(decoded.sha256)
            on_pair()
        collection.sources.append(ReadSource(given=as_text(source.given), kind=source.kind, pairs=num_pairs))
    for sha256 in held_out_sounds & collection.kept.keys():
        collection.kept.pop(sha256).file.unlink()
        collection.dropped[Reason.HELD_OUT] += 1
    for sample in collection.kept.values():
        sample.group = groups.of(sample.group)
    return collection


def _keep(collection: _Collection, groups: _Groups, decoded: DecodedPair, source: Source) -> None:
    """Keeps the pair as a sample, or merges it into the sample with the same sound."""
    assert decoded.file is not None
    pair = decoded.pair
    first = collection.kept.get(decoded.sha256)
    if first is None:
        about = {"source": f"{as_text(source.name)}: {pair.name}"} | dict(pair.about)
        texts = unique(pair.captions), unique_tags(pair.tags)
        sample = KeptSample(decoded.file, decoded.sha256, decoded.duration_s, *texts, pair.group, about)
        collection.kept[decoded.sha256] = sample
        return
    collection.dropped[Reason.DUPLICATE] += 1
    decoded.file.unlink()
    first.captions = unique([*first.captions, *pair.captions])
    first.tags = unique_tags([*first.tags, *pair.tags])
    if first.group and pair.group:
        groups.join(first.group, pair.group)
    first.group = first.group or pair.group


class _Groups:
    """Merges groups that share a sound."""

    def __init__(self) -> None:
        self._merged_into: dict[str, str] = {}

    def of(self, group: str) -> str:
        """The group that this one has been merged into; itself if into none."""
        while group in self._merged_into:
            group = self._merged_into[group]
        return group

    def join(self, first: str, second: str) -> None:
        kept, other = self.of(first), self.of(second)
        if kept != other:
            self._merged_into[other] = kept


def _write(building: Path, collection: _Collection, plan: Plan, on_sample: Callable[[int], None]) -> list[Manifest]:
    # Shuffled by sound and seed, so that the order doesn't depend on that of the sources.
    samples = sorted(collection.kept.values(), key=lambda sample: _random_key(plan.seed, sample.sha256))
    if not samples:
        reasons = ", ".join(f"{number} {reason}" for reason, number in sorted(collection.dropped.items()))
        first = "".join(
            f" The first that can't be read: {unreadable.name}: {unreadable.error}"
            for unreadable in collection.unreadable[:1]
        )
        raise TrainingError(
            f"Nothing is left of {counted(collection.num_pairs, 'pair')} ({reasons or 'the sources are empty'}).{first}"
        )
    manifests: dict[Split, Manifest] = {}
    for split, part in _split(samples, plan).items():
        shards = write_shards(building / split, part, plan.samples_per_shard, lambda: on_sample(len(samples)))
        manifests[split] = _manifest(split, part, shards, collection, plan)
    for split, manifest in manifests.items():
        write_manifest(building / split, manifest)
    return list(manifests.values())


def _manifest(
    split: Split, samples: Sequence[KeptSample], shards: list[Shard], collection: _Collection, plan: Plan
) -> Manifest:
    settings = asdict(plan)
    del settings["threads"]  # the result doesn't depend on them
    return Manifest(
        clapboard=__version__,
        split=split,
        samples=len(samples),
        captions=sum(len(sample.captions) for sample in samples),
        tags=sum(len(sample.tags) for sample in samples),
        duration_s=round(sum(sample.duration_s for sample in samples), 3),
        shards=tuple(shards),
        found=collection.num_pairs,
        dropped=_counts(collection.dropped),
        dropped_captions=_counts(collection.dropped_captions),
        unreadable=tuple(collection.unreadable),
        sources=tuple(collection.sources),
        settings=settings.pop("rules") | settings,
    )


def _counts(dropped: Counter[Reason]) -> dict[str, int]:
    return {str(reason): dropped[reason] for reason in Reason if dropped[reason]}


def _split(samples: Sequence[KeptSample], plan: Plan) -> dict[Split, list[KeptSample]]:
    """The samples of each split, in their order. Groups are drawn for validation as a whole."""
    if not plan.validation_share:
        return {"": list(samples)}
    sizes = Counter(sample.group or sample.key for sample in samples)
    room = round(plan.validation_share * len(samples))
    validation = set()
    for group in sorted(sizes, key=lambda group: _random_key(plan.seed, f"validation:{group}")):
        if sizes[group] <= room:
            validation.add(group)
            room -= sizes[group]
    split: dict[Split, list[KeptSample]] = {name: [] for name in SPLITS}
    for sample in samples:
        split[SPLITS[(sample.group or sample.key) in validation]].append(sample)
    if not all(split.values()):
        raise TrainingError(
            f"A validation share of {plan.validation_share:g} leaves a split empty: there are "
            f"{counted(len(samples), 'sample')} in {counted(len(sizes), 'group')}, and groups stay together. Choose "
            "another share, or name smaller groups."
        )
    return split


def _random_key(seed: int, name: str) -> bytes:
    """A pseudo-random sort key that depends on the seed and the name alone, so it is the same on every machine."""
    return hashlib.sha256(f"{seed}:{name}".encode()).digest()
