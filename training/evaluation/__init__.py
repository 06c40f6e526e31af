"""Evaluates models on the user's own clips, which `listed_clips` reads and embeds.

`fewshot` draws labels for the `contenders` to learn from. `retrieval` and `probe` compute the figures of
`training.benchmarks`, and `chart` draws curves.
"""
