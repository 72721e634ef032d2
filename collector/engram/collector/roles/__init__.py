"""The processes: `collect`, `learn`, `serve`, and `up`, which keeps the three alive.

Each role is one function that runs until it is told to stop and returns the exit code.
"""
