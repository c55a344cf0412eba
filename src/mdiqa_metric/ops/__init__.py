"""Pure functions of tensors that several metrics share; none holds a weight."""
