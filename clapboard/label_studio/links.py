"""Addresses of Label Studio's pages, for people."""

from __future__ import annotations


def task_url(label_studio_url: str, project: int, task: int) -> str:
    """The page that opens a task. Label Studio has none that jumps to a second of it."""
    return f"{label_studio_url.rstrip('/')}/projects/{project}/data?task={task}"
