"""State, optimizer, the jitted step and the host loop around it."""
