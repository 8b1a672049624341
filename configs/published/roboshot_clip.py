"""RoboShot on an image set of the paper's table 1, from the embeddings of one of its models.

    python -m experiments.published roboshot_clip --folder DIR --dataset waterbirds --model vit_b32

``python -m experiments.published roboshot_clip`` alone lists the files that DIR must hold. Nothing was measured here:
the embeddings are not in a package registry, and CLIP weights are not in this package yet. The published average and
worst-group accuracies stand beside the measured ones in the report, for Waterbirds and ViT-B/32 80.7 % and 27.9 %
zero-shot, 82.0 % and 54.4 % RoboShot.
"""

from experiments.published import RoboshotClip


def get_config() -> RoboshotClip:
    return RoboshotClip()
