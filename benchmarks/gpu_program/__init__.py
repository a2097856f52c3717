"""What XLA makes of the operations and networks for a GPU, on a machine without one."""
