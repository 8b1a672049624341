"""Mixed-curvature embeddings against the released training loop and against geoopt, in torch and in one process.

    python -m benchmarks.curvature --released DIR_OF_MIXED_CURVATURE_PATHWAYS

One graph of 114 nodes, the mean size of HumanCyc's pathways, under all 63 signatures. The released loop (a checkout of
mcneela/Mixed-Curvature-Pathways) runs as its sweep script has it: an epoch is 57 steps of 32 of 16 pairs a node. geoopt
does our own updates: an epoch is one step of Riemannian Adam on all pairs, of which there are seven times as many. Both
are timed on a few epochs of every signature and scaled up; their kernels are compiled ahead of time, ours are not, so
that our first run, compilations included, is told too. Then 100 graphs in one program against one after the other, a
step of the product GCN against dense torch, and 10,000 nodes by sampled pairs with the peak memory of a fresh process.
"""

import argparse
import functools
import sys
import warnings
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks import measure
from zsml_jax.curvature import decoder, embed, embed_sampled, gcn, signature
from zsml_jax.curvature.embed import Config
from zsml_jax.curvature.manifold import Product
from zsml_jax.data import graphs
from zsml_jax.data.graphs import Graph

NODES, EPOCHS = 114, 1000
KEY = jax.random.key(0)


def random_graph(n: int, degree: float, seed: int = 0) -> Graph:
    """A connected graph: a random tree and random edges."""
    rng = np.random.default_rng(seed)
    rows = [(i, int(rng.integers(max(0, i - 20), i))) for i in range(1, n)]
    rows += [tuple(pair) for pair in rng.integers(0, n, (int(n * (degree / 2 - 1)), 2)).tolist()]
    return graphs.from_edges([(f"{a:05}", f"{b:05}") for a, b in rows])


def geoopt_epochs(graph: Graph, products: list[Product], epochs: int) -> None:
    """The same updates with geoopt's manifolds and optimizer, a factor group at a time."""
    import geoopt
    import torch

    wanted = torch.tensor(graph.distances(), dtype=torch.float32).fill_diagonal_(1)
    pairs = ~torch.eye(len(graph), dtype=torch.bool)
    kinds = {"h": geoopt.Lorentz, "e": geoopt.Euclidean, "s": geoopt.SphereExact}
    for product in products:
        points, scales = [], []
        for group in product.factors:
            manifold = kinds[group.kind](**({"ndim": 1} if group.kind == "e" else {}))
            start = 0.1 * torch.randn(len(graph), group.copies, group.dim)
            if group.kind != "e":
                start = manifold.expmap(
                    torch.eye(1, group.width).expand(len(graph), group.copies, group.width).contiguous(),
                    torch.nn.functional.pad(start, (1, 0)),
                )
            points.append(geoopt.ManifoldParameter(start, manifold=manifold))
            scales.append(torch.nn.Parameter(torch.zeros(group.copies)))
        rule = geoopt.optim.RiemannianAdam([{"params": points, "lr": 0.2}, {"params": scales, "lr": 0.05}])
        for _ in range(epochs):
            rule.zero_grad()
            total = 0
            for x, scale in zip(points, scales, strict=True):
                apart = x.manifold.dist(x[:, None], x[None])
                apart = apart if apart.ndim == 3 else apart[..., None]
                total = total + ((scale.exp() * apart) ** 2).sum(-1)
            found = (total + 1e-12).sqrt()
            (((found / wanted - 1) ** 2)[pairs].mean()).backward()
            rule.step()


def released_classes(folder: Path) -> tuple[Any, Any]:
    """The released model and the base class of its parameters, from their files alone."""
    sys.path.insert(0, str(folder / "pytorch"))
    from hyperbolic_models import ProductEmbedding  # pyrefly: ignore[missing-import]
    from hyperbolic_parameter import RParameter  # pyrefly: ignore[missing-import]

    return ProductEmbedding, RParameter


def released_epochs(model_of: Any, parameter: Any, graph: Graph, products: list[Product], epochs: int) -> None:
    """The released loop at the settings of its sweep script, with the released model and parameters."""
    import torch

    wanted, near, rng = graph.distances(), graph.adjacency(), np.random.default_rng(0)
    rows = []
    for i in range(len(graph)):
        # Neighbours come first.
        others = rng.permutation(np.delete(np.arange(len(graph)), i))
        others = others[np.argsort(~near[i, others], kind="stable")][:16]
        index = torch.tensor([[i, j] for j in others])
        rows.append((index, torch.tensor(wanted[i, others]), torch.ones(len(others), dtype=torch.double)))
    collate = lambda items: tuple(torch.cat(column) for column in zip(*items, strict=True))
    for product in products:
        size = {group.kind: (group.dim, group.copies) for group in product.factors}
        args = [number for kind in "hes" for number in size.get(kind, (1, 0))]
        model = model_of(len(graph), *args)
        model.normalize()
        curved = [p for p in model.embed_params if p.use_exp]
        flat = [p for p in model.embed_params if not p.use_exp]
        rule = torch.optim.SGD(flat, lr=1e-4) if flat else None
        batches = torch.utils.data.DataLoader(rows, 2, shuffle=True, collate_fn=collate)
        for _ in range(epochs):
            for batch in batches:
                for p in (*curved, *flat):
                    p.grad = None
                model.loss(batch).backward()
                parameter.correct_metric(model.parameters())
                if rule is not None:
                    rule.step()
                for p in curved:
                    p.exp(1e-4)
                model.normalize()


def large(nodes: str) -> list[float]:
    """Embeds a large graph; returns its distortion and the seconds."""
    graph = random_graph(int(nodes), 6.0)
    product = signature.product_of(1, 1, 1, dim=30)
    found = []
    seconds = measure.seconds(lambda: found.append(embed_sampled.fit(graph, product, Config(steps=EPOCHS), key=KEY)))
    return [float(found[0].distortion), seconds]


def gcn_step() -> tuple:
    """One step of a product GCN of 2 layers on 300 nodes, and the same by dense torch in tangent spaces."""
    import torch

    n, graph = 300, random_graph(300, 12.0)
    config = gcn.GcnConfig(("h", "e", "s"), ((32, 16, 16),) * 3)
    propagate = gcn.row_normalised(graph.adjacency())
    rng = np.random.default_rng(0)
    x = [jnp.asarray(0.1 * rng.normal(size=(n, 32)), jnp.float32) for _ in range(3)]
    links = jnp.asarray(graph.adjacency())
    rule = optax.adam(0.01)

    def loss(params: gcn.Gcn) -> jax.Array:
        scores = decoder.logits(
            params.decoder, gcn.squared_distances(config, params, gcn.embed(config, params, x, propagate))
        )
        return optax.sigmoid_binary_cross_entropy(scores, links).mean()

    @jax.jit
    def ours(params: gcn.Gcn, state: optax.OptState) -> tuple:
        updates, state = rule.update(jax.grad(loss)(params), state)
        return optax.apply_updates(params, updates), state

    params = gcn.init(config, key=KEY)
    carry = [params, rule.init(params)]

    a, y = torch.tensor(np.asarray(propagate)), torch.tensor(np.asarray(links), dtype=torch.float32)
    features = [torch.tensor(np.asarray(part)) for part in x]
    weights = [[torch.nn.Parameter(0.1 * torch.randn(m, 16)) for m in (32, 16)] for _ in range(3)]
    biases = [[torch.nn.Parameter(torch.zeros(16)) for _ in range(2)] for _ in range(3)]
    import geoopt.manifolds.stereographic.math as ball

    peer_rule = torch.optim.Adam([p for part in (*weights, *biases) for p in part], lr=0.01)
    kappas = [torch.tensor(-1.0), torch.tensor(1e-6), torch.tensor(1.0)]

    def peer() -> None:
        for _ in range(10):
            peer_rule.zero_grad()
            total = 0
            for h, ws, bs, k in zip(features, weights, biases, kappas, strict=True):
                h = ball.expmap0(h, k=k)
                for number, (w, b) in enumerate(zip(ws, bs, strict=True)):
                    h = ball.mobius_add(ball.expmap0(ball.logmap0(h, k=k) @ w, k=k), ball.expmap0(b, k=k), k=k)
                    tangent = a @ ball.logmap0(ball.project(h, k=k), k=k)
                    h = ball.project(ball.expmap0(tangent.relu() if number == 0 else tangent, k=k), k=k)
                total = total + ball.dist(h[:, None], h[None], k=k) ** 2
            torch.nn.functional.binary_cross_entropy_with_logits(2 - total, y).backward()
            peer_rule.step()

    def run() -> list:
        for _ in range(10):
            carry[:] = ours(*carry)
        return carry

    return run, peer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="ours, of every signature")
    parser.add_argument("--peer-epochs", type=int, default=3, help="timed of the peer, of every signature")
    parser.add_argument("--released", type=Path, help="a checkout of mcneela/Mixed-Curvature-Pathways")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--nodes", type=int, default=10_000, help="of the large graph")
    args = parser.parse_args()
    warnings.simplefilter("ignore")  # geoopt compiles by torch.jit, which is deprecated
    print(measure.machine("torch", "geoopt"))

    graph, products = random_graph(NODES, 6.0), signature.all_signatures()
    fit = lambda: [
        e.distortion for e in embed.fit_all([graph], products, Config(args.epochs, batch=args.batch), key=KEY)[0]
    ]
    first, again = measure.seconds(fit), measure.seconds(fit)
    print(f"{NODES} nodes, 63 signatures, {args.epochs} epochs: ours {again:.1f} s (first {first:.1f} s)", flush=True)
    peers = {"geoopt": geoopt_epochs}
    if args.released is not None:
        peers["released"] = functools.partial(released_epochs, *released_classes(args.released))
    for name, epochs in peers.items():
        epochs(graph, products[:4], 1)
        some = functools.partial(epochs, graph, products, args.peer_epochs)
        low, mid, high = sorted(measure.seconds(some) * args.epochs / args.peer_epochs for _ in range(3))
        print(
            f"    {name} {mid:.0f} s ({low:.0f} to {high:.0f}), {mid / again:.1f} times ours "
            f"({low / again:.1f} to {high / again:.1f}; {mid / first:.1f} with compilation)",
            flush=True,
        )

    many, one = [random_graph(24, 6.0, seed) for seed in range(100)], [signature.product_of(1, 1, 1)]
    config = Config(200, batch=25)
    together = lambda: [row[0].distortion for row in embed.fit_all(many, one, config, key=KEY)]
    apart = lambda: [embed.fit_all([g], one, config, key=KEY, pad_to=24)[0][0].distortion for g in many]
    measure.seconds(apart)
    measure.compare("100 graphs of 24 nodes, 200 epochs", together, apart, peer_name="one by one", repeats=3)

    run, peer = gcn_step()
    peer()
    measure.compare("product GCN, 300 nodes, 10 steps", run, peer, peer_name="torch, geoopt", repeats=5)

    (distortion, seconds), peak = measure.alone("benchmarks.curvature:large", str(args.nodes))
    print(
        f"{args.nodes:,} nodes by sampled pairs, {EPOCHS} steps: {seconds:.1f} s, distortion {distortion:.3f}, "
        f"peak {peak:.2f} GB in all; the matrix alone would be {4e-9 * args.nodes**2:.2f} GB"
    )


if __name__ == "__main__":
    main()
