"""What is done for a Label Studio project as a whole: pre-labelling, sync, which version serves it, what it shows."""
