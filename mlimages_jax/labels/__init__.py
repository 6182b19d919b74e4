"""Class hierarchies and label lists; numpy only, importable without jax."""
