"""RoboShot on CelebA, 19,962 test images, hair colour by gender.

    python -m experiments.roboshot celeba --embeddings DIR

The encoder's weights and the images are yours to embed: without ``--embeddings`` the command says which files the
folder must hold, and given one it writes the list of texts to embed. The report prints the paper's figures beside the
measured ones; for CLIP ViT-B/32 they are 80.1 % and 72.7 % zero-shot (average and worst group), 84.8 % and 80.5 %
RoboShot.
"""

from experiments.roboshot import Config


def get_config() -> Config:
    return Config(
        dataset="celeba",
        source="folder",
        insights="celeba",
        model="CLIP ViT-B/32",
        group_names=("dark hair, female", "dark hair, male", "blond hair, female", "blond hair, male"),
        average="micro",
        note="The paper's average is the micro average of WILDS. Its insights name the class labels themselves.",
    )
