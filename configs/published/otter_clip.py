"""OTTER on a set of the paper's table 1, from CLIP ViT-B/16 embeddings (BERT's for its text sets).

    python -m experiments.published otter_clip --folder DIR --dataset cifar10

``python -m experiments.published otter_clip`` alone lists the files that DIR must hold. Nothing was measured here: the
embeddings are not in a package registry, and CLIP weights are not in this package yet. The published accuracies stand
beside the measured ones in the report, for CIFAR-10 88.3 % zero-shot, 91.3 % prior matching, 91.7 % OTTER and 88.4 %
R-OTTER. Prior matching takes 10,000 steps for each of 9 settings and 10 samplings: at 10,000 examples of 10 classes
about two minutes a sampling on two busy cores, which ``--max-iterations 1000 --samplings 3`` shortens.
"""

from experiments.published import OtterClip


def get_config() -> OtterClip:
    return OtterClip()
