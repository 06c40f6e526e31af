"""How good a model is on clips and captions of one's own: `listed_clips` are read and embedded, then compared.

`fewshot` draws labels and has the `contenders` learn from them; `retrieval` and `probe` are what the tables of
`training.benchmarks` rest on, and `chart` draws a curve.
"""
