"""The processes that run a program side by side, as mpiexec or srun has started them, and which of them this is."""

import os

VARIABLES = (  # rank, and how many there are
    ("PMI_RANK", "PMI_SIZE"),  # Hydra (MPICH, Intel MPI), srun --mpi=pmi2
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),  # Open MPI
    ("PMIX_RANK", "SLURM_STEP_NUM_TASKS"),  # srun --mpi=pmix; in a batch script outside srun neither is set
)


def rank_and_size() -> tuple[int, int]:
    """This process's rank and how many there are; (0, 1) of a process that was started by itself."""
    for rank, size in VARIABLES:
        if rank in os.environ and size in os.environ:
            return int(os.environ[rank]), int(os.environ[size])
    return 0, 1


def several() -> bool:
    """Whether this process is one of several that run the program side by side."""
    return rank_and_size()[1] > 1


def leads() -> bool:
    """Whether this process is the one that prints, shows progress, writes files and calls callbacks."""
    return rank_and_size()[0] == 0
