"""Tables of sound events in files: Raven selection tables, Audacity labels, CSV, AOEF and Hugging Face data sets.

Readers and writers alike go through `EventRow`, one row of whatever table. Files come from strangers: every cell is
checked, and a reader holds a row at a time, however long its file is.
"""
