"""What one NVIDIA GPU computes, how fast and in how much memory: python -m benchmarks gpu --help.

Needs jax, flax and optax, neither data nor the packages that training from files needs; rows beside PyTorch
appear where torch is installed.
"""
