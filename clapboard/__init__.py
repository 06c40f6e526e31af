"""Clapboard pre-labels audio in Label Studio with CLAP, and learns from what people accept.

Read the modules in the order in which a task goes through them:
`labels → sources → audio → features → clap → scoring → head → prediction → label_studio`.
"""

__version__ = "0.1.0"
