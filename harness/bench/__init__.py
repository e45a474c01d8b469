"""`make bench`: rates relative to the database alone, and CPU relative to an empty route."""
