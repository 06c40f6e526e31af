"""A stand-in for label-studio-ml 2.x: see README.md beside this package."""
