"""Everything that is said to Label Studio's API, and nothing that isn't.

`client` is the way in (on `session`, `predictions`, `records`, `failures`); `connect` ties a project to the backend,
`checks` says what is wrong there; `validation` is what Label Studio itself doesn't check.
"""
