"""One layer of ReLU neurons."""
