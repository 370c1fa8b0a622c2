"""Small networks and data sets on which the theory is tried."""
