"""Annotations and what follows from them, as pure functions without the store or the network.

`suggestions` finds the suggestion that an annotation answered, `entries` turns an event into ledger entries,
`consensus` turns these into the labels that a task's annotators agree on, and `acceptance` counts how suggestions fare.
"""
