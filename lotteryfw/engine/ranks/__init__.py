"""One network trained by several processes, the ranks, each on a share of every batch."""
