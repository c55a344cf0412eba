"""Blocks that several metrics share."""
