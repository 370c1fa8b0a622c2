"""What is fitted: the linear and the ReLU model, their reductions and their samplers."""
