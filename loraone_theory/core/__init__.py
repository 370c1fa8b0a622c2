"""What everything stands on: factors, argument checks, linear algebra, randomness."""
