"""What scenarios with load balancers are written with."""
