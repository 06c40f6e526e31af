"""Evaluates models on the public data sets of CLAP's authors, read in their official layouts."""
