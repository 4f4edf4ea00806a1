"""The data of a report, read and computed: series, statistics, units, findings, curves."""
