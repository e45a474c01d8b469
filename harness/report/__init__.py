"""The report of a run: claims with their tests and results, figures, and the command that reruns each failure."""
