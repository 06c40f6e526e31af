"""The parts of `training.pretrain`.

Read the modules in the order `batch`, `audio_input`, `loss`, `contrastive`, `processes`, `optimiser`, `curves`; `run`
goes from a data set to a checkpoint, and `tokenizer` is for a text tower from scratch.
"""
