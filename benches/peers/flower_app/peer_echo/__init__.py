"""The Flower side of the comparison."""
