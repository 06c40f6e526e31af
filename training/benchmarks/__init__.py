"""The public data sets by which CLAP's authors judge it: official layouts → figures beside published ones."""
