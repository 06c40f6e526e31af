"""LAION's original checkpoints (`.pt`) → folders in transformers' layout, checked against the original."""

from clapboard.model.laion.conversion import Conversion, convert

__all__ = ["Conversion", "convert"]
