"""What a report reads and computes: series, statistics, units, findings, learning curves."""
