"""The Flower side of the comparison of secure sums."""
