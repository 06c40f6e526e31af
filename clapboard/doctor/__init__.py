"""What `clapboard doctor` checks, each with the remedy where it fails."""
