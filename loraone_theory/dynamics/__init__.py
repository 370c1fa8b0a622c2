"""From the arguments of a simulation to its trajectory."""
