"""A task's URI → a local audio file, by `AudioSources.fetch`.

Read the modules in the order `uris`, `addresses`, `guarded_http`, `cache`, `fetch`.
"""

from clapboard.sources.cache import SourceFile
from clapboard.sources.fetch import AudioSources

__all__ = ["AudioSources", "SourceFile"]
