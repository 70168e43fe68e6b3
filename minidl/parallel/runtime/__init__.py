"""What runs a Program: launching and watching workers, their shared-memory groups, and the worker itself."""
