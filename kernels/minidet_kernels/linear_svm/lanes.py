"""How many sums stand side by side in a row's dot product: a vector of float64, where vectors have 512 bits."""

LANES = 8
