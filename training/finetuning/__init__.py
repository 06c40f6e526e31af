"""The parts of `training.finetune`.

Read the modules in the order `labelled`, `ladder`, `stages`, `tower`, `hidden`, `loss`, `trainer`; `memory` halves what
doesn't fit, and `run` is the process in which a worker has it done, up to the gate's verdict.
"""
