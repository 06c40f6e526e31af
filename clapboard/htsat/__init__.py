"""CLAP's audio tower, HTSAT, written for speed, with the weights of the reference."""

from clapboard.htsat.tower import Htsat

__all__ = ["Htsat"]
