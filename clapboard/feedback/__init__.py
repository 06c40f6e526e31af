"""What people said, and what follows from it.

`sync` reads what was missed, `suggestions` finds what each person had in view, `entries` says what an event meant
against it, `consensus` what a task's people agree on, `acceptance` how suggestions fare.
"""
