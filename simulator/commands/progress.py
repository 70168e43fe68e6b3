"""What the commands show while this machine is measured."""

from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn

PROGRESS = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
CALIBRATING = "calibrating this machine"
