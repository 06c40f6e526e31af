"""The parts of `training.finetune`.

Read the modules in the order `labelled`, `trainable_stages`, `tower_stages`, `tower`, `hidden`, `label_loss`,
`trainer`. `memory` halves what doesn't fit into memory; `groups` keeps clips of one recording together; `run` is the
process that a worker starts, from `spec`'s files to the gate's verdict.
"""
