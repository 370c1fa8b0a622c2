"""Linear matrix sensing."""
