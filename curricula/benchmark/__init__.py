"""Training speed on a machine, beside the network's own limit and other libraries."""
