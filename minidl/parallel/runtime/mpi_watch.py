"""A process beside the ranks of one machine that says which of them died first; mpiexec only kills the others.

Run as a script, with as arguments the machine and, of each rank, its name, its process id and the number of a file
descriptor there: of a pipe to which the rank alone can write. The kernel closes that as early as the connection by
which mpiexec notices that a rank is gone, and so before the others are killed. It ends when a rank has died, or a byte
comes on its standard input. It imports little, as every run waits for it to end.
"""

import os
import select
import sys


def main(machine: str, *arguments: str) -> None:
    poll, ranks, died = select.poll(), {}, []
    for name, pid, pipe in zip(arguments[::3], arguments[1::3], arguments[2::3], strict=True):
        try:
            ranks[os.open(f"/proc/{pid}/fd/{pipe}", os.O_RDONLY | os.O_NONBLOCK)] = f"{name} (process {pid})"
        except FileNotFoundError:
            died.append(f"{name} (process {pid})")
    for descriptor in (0, *ranks):
        poll.register(descriptor, select.POLLIN)
    while not died:
        ended = {descriptor for descriptor, _ in poll.poll()}
        if 0 in ended:
            if os.read(0, 1):
                return
            poll.unregister(0)  # the rank that started this process is dying, perhaps as the first
        died = [name for descriptor, name in ranks.items() if descriptor in ended]
    print(f"{' and '.join(died)} died, the first on {machine}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
