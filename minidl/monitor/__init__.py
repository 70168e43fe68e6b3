"""What happens while a model trains: scalars per step to the terminal, to files and to TensorBoard."""

from minidl.monitor.monitor import Monitor
