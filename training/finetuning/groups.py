"""Groups clips that must stay together in every split."""

from __future__ import annotations

from collections.abc import Sequence


def groups_of(clips: Sequence[tuple[str, str]]) -> list[str]:
    """The group of each clip, given as (the recording it was cut from, the sha256 of its sound).

    Clips of the same recording or of the same sound, at whatever address, are in one group, also through other clips
    (union–find). A group is named after one of its recordings.
    """
    parents: dict[tuple[str, str], tuple[str, str]] = {}

    def root(node: tuple[str, str]) -> tuple[str, str]:
        while (parent := parents.setdefault(node, node)) != node:
            parents[node] = parents[parent] = parents.setdefault(parent, parent)
            node = parents[node]
        return node

    for recording, sound in clips:
        roots = root(("recording", recording)), root(("sound", sound))
        parents[max(roots)] = min(roots)
    return [root(("recording", recording))[1] for recording, _ in clips]
