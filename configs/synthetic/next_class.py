"""Growing the locus of a random tree, one observed class at a time.

python -m experiments.synthetic next_class
"""

from experiments.synthetic import NextClass


def get_config() -> NextClass:
    return NextClass()
