"""How the parameters of families of models lie on a mesh of ``data`` and ``model``, as rules of :mod:`.sharding`.

Heads and hidden units are divided over ``model`` (Shoeybi et al., 2019, section 3): what opens a block by its columns
and what closes it by its rows, so that a block needs one sum over devices. The other axis of each matrix is divided
over ``data`` (Rajbhandari et al., 2020, stage 3). On a mesh ``"data:-1,model:1"`` the table is fully sharded data
parallelism, and on ``"data:1,model:-1"`` tensor parallelism. The leading axis is that of the stacked layers.
"""

from typing import Final

from jax.sharding import PartitionSpec

from zsml_jax.train.sharding import ShardingRule

_P = PartitionSpec
#: GPT-2, GPT-Neo, GPT-NeoX and the Llama family.
DECODER: Final[tuple[ShardingRule, ...]] = (
    ("embeddings/word/embedding", _P("model", "data")),
    ("embeddings/position/embedding", _P(None, "data")),
    ("layers/attention/(query|key|value)/kernel", _P(None, "data", "model")),
    ("layers/attention/(query|key|value)/bias", _P(None, "model")),
    ("layers/attention/out/kernel", _P(None, "model", "data")),
    ("layers/mlp/(up|gate)/kernel", _P(None, "data", "model")),
    ("layers/mlp/(up|gate)/bias", _P(None, "model")),
    ("layers/mlp/down/kernel", _P(None, "model", "data")),
    ("head/kernel", _P("data", "model")),
    ("head/bias", _P("model")),
    (".*norm/(scale|bias)", _P()),
    ("layers/(attention/out|mlp/down)/bias", _P()),
)
