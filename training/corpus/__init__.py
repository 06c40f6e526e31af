"""Turns audio–text pairs from many kinds of sources into tar shards with a manifest, and streams them.

Read the modules in the order `pairs`, `sources` (and what it opens: `folders`, `listed_pairs`, `hugging_face`,
`tars`, `projects`), `filters` (with `language` and `loudness`), `decoding`, `shards`, `manifest`, `build`, `stream`.
"""
