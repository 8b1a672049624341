"""RoboShot on CXR14, 2,661 chest radiographs with and without pneumothorax.

    python -m experiments.roboshot cxr14 --embeddings DIR

The encoder's weights and the images are yours to embed: without ``--embeddings`` the command says which files the
folder must hold, and given one it writes the list of texts to embed. The report prints the paper's figures beside the
measured ones; for BiomedCLIP they are 55.3 % and 28.9 % zero-shot (average and worst group), 56.2 % and 41.6 %
RoboShot.
"""

from experiments.roboshot import Config


def get_config() -> Config:
    return Config(
        dataset="cxr14",
        source="folder",
        insights="cxr14",
        model="BiomedCLIP",
        average="macro_group",
        note=(
            "The paper's average is that over the two classes, the macro average of the second table; its worst "
            "group has 20 images."
        ),
    )
