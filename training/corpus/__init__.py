"""Audio–text pairs from wherever they are → one kind of data set: tar shards with a manifest, and their stream.

Read the modules in the order `pairs`, `sources` (and what it opens: `folders`, `listed`, `hugging_face`, `tars`,
`projects`), `filters` (with `language` and `loudness`), `heard`, `shards`, `manifest`, `build`, `stream`.
"""
