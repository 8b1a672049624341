"""The machine below intercept, edit and capture: one interceptor for a chain of steps, entered while tracing.

How arrays reach layer i of a scanned stack, where an interceptor sees one path and no index: they are put into the
parameter tree at the path of the site, under a name that no module has, and ``nn.scan`` slices them with the
parameters. The model need not know. How values leave a stack: as Linen's ``intermediates``, which the stack must
declare (:data:`STACK_CONTRACT`). Both happen within one call; the caller's parameters and the module stay as they are.
"""

import abc
import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
from flax.core.scope import Scope, union_filters

from zsml_jax.transform.sites import PREFIX, ApplyFn, Site, is_traced_for_sites, sites, tracing_depth
from zsml_jax.typing import Params, PyTree

#: What a model with scanned layers must declare for values to leave them. For arrays to enter them it is enough that
#: the parameters of the layers are on the leading axis.
STACK_CONTRACT = 'nn.scan(..., variable_axes={"params": 0, "intermediates": 0})'
_COLLECTION = "intermediates"
_RUN = f"{PREFIX}run:"


class Call(NamedTuple):
    """One call of a submodule, as a step sees it.

    Attributes:
      module: the bound module.
      site: what is known of it.
      arrays: what the step's fn is given besides the value: this site's, then this layer's arrays.
      proceed: the call itself, as the steps further in have left it.
      args: its positional arguments.
      kwargs: its named arguments.
      emit: hands a value to the caller of the transformed function.
    """

    module: nn.Module
    site: Site
    arrays: tuple[PyTree, ...]
    proceed: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    emit: Callable[[PyTree], None]


class Step(abc.ABC):
    """One transform in a chain."""

    #: Whether the chain's output becomes ``(output, emitted values by path)`` here.
    captures = False

    @abc.abstractmethod
    def plan(self, found: Mapping[str, Site]) -> dict[str, tuple[PyTree, ...]]:
        """Returns the sites to act on, each with the arrays for ``Call.arrays``, stacked like the site."""

    @abc.abstractmethod
    def act(self, call: Call) -> Any:
        """Returns the output of the call."""


# Compared and hashed by identity, since steps hold arrays.
@dataclasses.dataclass(frozen=True, eq=False)
class Transformed:
    """An apply function around another.

    Attributes:
      base: the apply function without any transform.
      steps: the first is the innermost.
    """

    base: ApplyFn
    steps: tuple[Step, ...]

    def __call__(self, params: Params, *args: Any, **kwargs: Any) -> Any:
        """Returns the output, as :attr:`base` is called, with a pair around it for each step that captures."""
        found = sites(self.base, params, *args, **kwargs)
        run = _Run(params, found, self.steps)
        with nn.intercept_methods(run.intercept):
            output = self.base(run.params, *args, **kwargs)
        run.check_all_ran()
        for i, step in enumerate(self.steps):
            if step.captures:
                output = (output, run.emitted(i))
        return output


def transformed(apply_fn: ApplyFn, step: Step) -> Transformed:
    """Returns the apply function with one more step around it."""
    # One chain instead of nested calls: the sites of the base are listed once, however many steps there are.
    if isinstance(apply_fn, Transformed):
        return Transformed(apply_fn.base, (*apply_fn.steps, step))
    return Transformed(apply_fn, (step,))


class _Run:
    """What belongs to one call of a transformed function; it is gone when the call returns."""

    def __init__(self, params: Params, found: Mapping[str, Site], steps: tuple[Step, ...]) -> None:
        self._found, self._steps = found, steps
        self._plans = [step.plan(found) for step in steps]
        self._tracing = tracing_depth(params)
        # Calls may be nested through functions between them; each takes names of its own.
        self._name = f"{_RUN}{sum(key.startswith(_RUN) for key in params)}"
        self._treedefs: dict[tuple[int, str], Any] = {}
        self._calls: list[nn.Module | None] = []
        self._listing = False
        self._ran: set[tuple[int, str]] = set()
        self._roots: list[tuple[Scope, Mapping[str, Any]]] = []
        self.params = self._with_arrays(params)

    def intercept(
        self, next_fun: Callable[..., Any], args: tuple, kwargs: dict, context: nn.module.InterceptorContext
    ) -> Any:
        """The interceptor: the step that comes first is next to the module."""
        module, is_call = context.module, context.method_name == "__call__"
        scope: Any = module.scope
        # A module outside of any apply is not the model's; super().__call__ is part of a call already handled.
        if scope is None or (is_call and self._calls and self._calls[-1] is module):
            return next_fun(*args, **kwargs)
        with contextlib.nullcontext() if self._calls else self._root_call(scope):
            _open_scopes(module)
            self._calls.append(module if is_call else None)
            try:
                if is_call and not self._listing:
                    next_fun = self._around(module, next_fun)
                return next_fun(*args, **kwargs)
            finally:
                self._calls.pop()

    def check_all_ran(self) -> None:
        """Raises if a site that was found did not run, which is how a function compiled before looks."""
        missing = [path for i, plan in enumerate(self._plans) for path in plan if (i, path) not in self._ran]
        if missing:
            raise ValueError(f"apply_fn must not be jitted inside; it ran without the transform at {missing}")

    def emitted(self, index: int) -> dict[str, PyTree]:
        """Returns the values of one step by path; calls after the first of a shared module are ``path#1``, ..."""
        values: dict[str, list[PyTree]] = {path: [] for path in self._plans[index]}
        for _, variables in self._roots:
            for path, of_path in values.items():
                node: Any = variables
                for name in [*path.split("/"), self._variable(index)] if path else [self._variable(index)]:
                    node = node.get(name, {}) if isinstance(node, Mapping) else {}
                of_path.extend(node)
        return {f"{path}#{i}" if i else path: value for path, vs in values.items() for i, value in enumerate(vs)}

    def _variable(self, index: int) -> str:
        return f"{self._name}.{index}"

    def _with_arrays(self, params: Params) -> dict[str, Any]:
        changed: dict[str, Any] = {**params, self._name: {}}
        for i, plan in enumerate(self._plans):
            for path, arrays in plan.items():
                leaves, self._treedefs[i, path] = jax.tree.flatten(arrays)
                if self._found[path].stack and leaves:
                    numbered = {str(j): leaf for j, leaf in enumerate(leaves)}
                    _put(changed, [*path.split("/"), self._variable(i)], numbered)
        return changed

    def _around(self, module: nn.Module, proceed: Callable[..., Any]) -> Callable[..., Any]:
        path = "/".join(module.path)
        for i, plan in enumerate(self._plans):
            if path in plan:
                proceed = functools.partial(self._act, i, module, path, proceed)
        return proceed

    def _act(
        self, index: int, module: nn.Module, path: str, proceed: Callable[..., Any], *args: Any, **kwargs: Any
    ) -> Any:
        self._ran.add((index, path))
        arrays, emit = self._arrays(index, module, path), functools.partial(self._emit, module, index)
        return self._steps[index].act(Call(module, self._found[path], arrays, proceed, args, kwargs, emit))

    def _arrays(self, index: int, module: nn.Module, path: str) -> tuple[PyTree, ...]:
        treedef = self._treedefs[index, path]
        if not self._found[path].stack or not treedef.num_leaves:
            return self._plans[index][path]
        leaves: Any = module.get_variable("params", self._variable(index))
        return jax.tree.unflatten(treedef, [leaves[str(i)] for i in range(treedef.num_leaves)])

    def _emit(self, module: nn.Module, index: int, value: PyTree) -> None:
        if not module.sow(_COLLECTION, self._variable(index), value):
            raise ValueError(
                f"sites: {'/'.join(module.path)!r} is in scanned layers that let no values out; "
                f"their stack must declare {STACK_CONTRACT}"
            )

    @contextlib.contextmanager
    def _root_call(self, scope: Scope) -> Iterator[None]:
        """The outermost method of an apply: its scopes keep intermediates, which are taken when it is done."""
        # What a transform further in lists is not what this call is about.
        self._listing = is_traced_for_sites(scope, self._tracing)
        root, before = scope.root, scope.root.mutable
        opens = not self._listing and any(step.captures for step in self._steps)
        if opens:
            root.mutable = union_filters(before, _COLLECTION)
        try:
            yield
            if opens:
                others = [(other, values) for other, values in self._roots if other is not root]
                self._roots = [*others, (root, root.mutable_variables().get(_COLLECTION, {}))]
        finally:
            self._listing, root.mutable = False, before


def _open_scopes(module: nn.Module) -> None:
    """Lets a module keep intermediates if its root does."""
    # Scopes of modules that are fields of others were made before the root's was opened; and a lifted module, such as
    # a scan, hands on what its own scope may keep before any of its methods is seen.
    fields = [getattr(module, field.name) for field in dataclasses.fields(module) if field.name != "parent"]
    modules = [module, *jax.tree.leaves(fields, is_leaf=lambda value: isinstance(value, nn.Module))]
    for scope in (each.scope for each in modules if isinstance(each, nn.Module)):
        if scope is not None and scope.root.is_mutable_collection(_COLLECTION):
            scope.mutable = union_filters(scope.mutable, _COLLECTION)


def _put(tree: dict[str, Any], path: list[str], value: Any) -> None:
    # Copies the dicts on the way, so that the caller's tree stays as it is.
    for name in path[:-1]:
        tree[name] = dict(tree.get(name, {}))
        tree = tree[name]
    tree[path[-1]] = value
