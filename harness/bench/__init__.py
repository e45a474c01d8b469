"""`make bench`: what the system costs, as ratios to what its database would cost alone, in one run on one machine."""
