"""The public door: a template for DB-less Kong 3.9 and what renders it. See README.md."""
