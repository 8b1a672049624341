"""MoRe beside LoRA, DoRA, full fine-tuning and a linear probe, on real data at matched numbers of parameters.

    python -m experiments.more trec_fine
    python -m experiments.more smollm2_trec
    python -m experiments.more trec_coarse --method-file runs/more_search/trec_coarse/ID/best.json

Each method has the same grid of learning rates, from which the validation split chooses one; then it is trained at
this rate with several seeds, whose accuracies on the test split are reported. The test split chooses nothing.
"""

import jax
import numpy as np

from experiments import more_classifier, more_instruction, more_report, runner
from experiments.more_classifier import Classifier
from experiments.more_config import Classification, Instruction, check, resolve
from experiments.more_instruction import Student
from experiments.more_methods import contenders
from zsml_jax import models
from zsml_jax.report import RunFolder


def run(config: Classification | Instruction, folder: RunFolder) -> None:
    """Lets the methods compete, and reports."""
    with runner.refusals():
        config = resolve(config)
        check(config)
    if isinstance(config, Instruction):
        instruct(config, folder)
    else:
        classify(config, folder)


def classify(config: Classification, folder: RunFolder) -> None:
    """Trains sentence classifiers."""
    with runner.refusals():
        pretrained = models.load(config.model)
        splits = more_classifier.load(config, pretrained)
        num_classes = len(splits.test_set.class_names)
        head = jax.eval_shape(lambda key: more_classifier.fresh_head(pretrained, num_classes, key), jax.random.key(0))
        methods = contenders(config, pretrained, head)
    results, costs = {}, {}
    for name, contender in methods.items():
        classifier = Classifier(config, pretrained, contender, num_classes)
        results[name] = more_classifier.compete(config, pretrained, splits, name, classifier, folder)
        costs[name] = folder.cached(f"{name} cost", lambda c=classifier: more_classifier.cost(c, splits.train))
    more_report.write_classification(config, folder, splits, methods, results, costs)


def instruct(config: Instruction, folder: RunFolder) -> None:
    """Trains a language model to answer with labels."""
    with runner.refusals():
        pretrained = models.load(config.model)
        task = more_instruction.load(config, pretrained)
        methods = contenders(config, pretrained)
    results, costs = {}, {}
    for name, contender in methods.items():
        student = Student(config, pretrained, contender)
        results[name] = more_instruction.compete(config, task, name, student, folder)
        costs[name] = folder.cached(f"{name} cost", lambda s=student: more_instruction.cost(s, task))
    base = Student(config, pretrained, next(iter(methods.values())))
    untrained = folder.cached("untrained", lambda: base.answers(None, task, task.test))
    more_report.write_instruction(config, folder, task, methods, results, costs, np.asarray(untrained))


if __name__ == "__main__":
    runner.main(run, "more")
