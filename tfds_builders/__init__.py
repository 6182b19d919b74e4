"""TFDS builders, one folder a data set; none of them imports jax."""
