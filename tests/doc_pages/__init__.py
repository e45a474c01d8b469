"""Generates the pages and pictures of docs/ whose facts come from the code.

`python -m tests.doc_pages` writes them all.

A unit test fails if a committed file differs from what this package generates.
"""
