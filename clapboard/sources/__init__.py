"""A task's URI → a local audio file, by `AudioSources.fetch`.

`uris` parses the URI, `media` knows Label Studio's own files, `addresses` and `guarded_http` check connections,
`download` and `unpacking` read the file, and `cache` stores it.
"""

from clapboard.sources.audio_sources import AudioSources
from clapboard.sources.cache import SourceFile

__all__ = ["AudioSources", "SourceFile"]
