"""CLAP's audio tower, HTSAT, rewritten for speed, with the weights of the reference."""

from clapboard.model.htsat.tower import Htsat

__all__ = ["Htsat"]
