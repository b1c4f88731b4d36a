"""The lecture's systems, one file each, in the lecture's order."""
