"""RoboShot on four Gaussians, against the noise of the insights.

python -m experiments.synthetic gaussians
"""

from experiments.synthetic import Gaussians


def get_config() -> Gaussians:
    return Gaussians()
