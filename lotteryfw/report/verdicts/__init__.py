"""Verdicts on claims and on winning tickets."""
