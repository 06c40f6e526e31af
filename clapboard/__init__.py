"""Clapboard pre-labels audio in Label Studio with CLAP, and learns from what people accept.

A task passes through the rooms in this order: `labels → sources → audio → model → suggest → label_studio`.
"""

__version__ = "0.1.0"
