"""The page that `make verify` ends in: claims ⇔ tests ⇔ results, figures, and how to replay what failed."""
