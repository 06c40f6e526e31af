"""CLAP: its checkpoints and towers, and the encoder that turns windows and texts into embeddings."""
