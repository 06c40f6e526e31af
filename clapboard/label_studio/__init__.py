"""Label Studio's API: every call to it is made here.

`client` is the entry point, built on `session`, `annotations`, `predictions`, `tabs`, `records` and `failures`.
`connect` connects a project to the backend, `checks` finds what is wrong with that, and `validation` checks
predictions, which Label Studio doesn't.
"""
