"""LAION's original checkpoints (`.pt`) → folders in transformers' layout, each held to the original."""

from clapboard.laion.conversion import Conversion, convert

__all__ = ["Conversion", "convert"]
