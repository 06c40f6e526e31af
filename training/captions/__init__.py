"""Captions written by a text generator, beside those that rules write (`clapboard.labels.captions`)."""
