"""Real torch models; imported only on demand, since these modules need the extra `peft`."""
