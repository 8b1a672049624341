"""Several processes as one run, when asked for."""

import jax


def initialize(
    coordinator: str | None = None, *, num_processes: int | None = None, process_id: int | None = None
) -> None:
    """Joins the processes of a run, before anything else uses JAX; does nothing if that is done already.

    On Cloud TPU, Slurm and Open MPI no argument is needed. On CPUs the collectives go over Gloo.

    Args:
      coordinator: ``host:port`` of the first process.
      num_processes: how many there are.
      process_id: which one this is.

    Raises:
      ValueError: if the arguments are given in part, or are out of range.
    """
    if jax.distributed.is_initialized():
        return
    given = (coordinator is not None, num_processes is not None, process_id is not None)
    if any(given) and not all(given):
        raise ValueError(
            "coordinator, num_processes and process_id must be given together, or none of them; "
            f"got {coordinator!r}, {num_processes} and {process_id}"
        )
    if num_processes is not None and process_id is not None and not 0 <= process_id < num_processes:
        raise ValueError(f"process_id must lie in 0..{num_processes - 1}, got {process_id}")
    if jax.config.jax_platforms == "cpu":  # pyrefly: ignore[missing-attribute]
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.distributed.initialize(coordinator, num_processes, process_id)
