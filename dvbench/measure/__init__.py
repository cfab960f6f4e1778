"""What is measured: multiplications, seconds, bytes and distances between feature sets. Knows no diffusion."""
