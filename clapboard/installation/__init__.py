"""What all backends, workers and commands of one installation share, besides its settings."""
