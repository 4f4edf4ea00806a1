"""Checks that can be run at any size: a few hundred cases in the test suite, many thousands by hand."""
