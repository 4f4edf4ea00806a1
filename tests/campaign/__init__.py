"""Checks of any size: a few cases in the test suite, many thousands by hand."""
