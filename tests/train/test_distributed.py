import pytest

from zsml_jax.train import distributed


def test_arguments_in_part_or_out_of_range_are_refused():
    with pytest.raises(ValueError, match="must be given together, or none"):
        distributed.initialize("localhost:1234")
    with pytest.raises(ValueError, match=r"process_id must lie in 0\.\.1, got 2"):
        distributed.initialize("localhost:1234", num_processes=2, process_id=2)
