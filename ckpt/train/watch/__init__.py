"""What a run reports, and the files that record it."""
