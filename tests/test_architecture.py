"""The shape of the house: who imports whom, what is public, what is nowhere to be found."""

import ast
import enum
import fnmatch
import functools
import importlib
import inspect
import pathlib
import subprocess
import sys
import typing

import pytest

import jaxgd

HOME = pathlib.Path(__file__).resolve().parent.parent
LIBRARY = HOME / "jaxgd"

# The rooms in their order. A room imports from those named beside it, all above it in this table.
MAY_IMPORT = {
    "types": set(),
    "_jaxprs": set(),
    "_repr": {"types"},
    "_checks": {"types", "_jaxprs", "_repr"},
    "_iteration": {"types", "_checks"},
    "neurons": {"types", "_checks"},
    "losses": {"types", "_jaxprs", "_checks"},
    "curvature": {"types", "_jaxprs", "_checks", "_repr"},
    "_affine": {"types", "_jaxprs", "_checks"},
    "_batches": {"types", "_jaxprs"},
    "surfaces": {"types", "_checks", "_repr", "_batches"},
    "chains": {"types", "_checks", "_repr", "_iteration"},
    "descent": {"types", "_checks", "_repr", "_iteration"},
    "planes": {"types", "_checks", "_repr", "_affine"},
    "curves": {"types", "_jaxprs", "_checks", "_repr", "_iteration", "descent", "planes"},
    "sweeps": {"types", "_jaxprs", "_checks", "_affine", "_batches", "surfaces"},
    # What draws refuses by name, too; and the result types of any room, checked below.
    # The playground compiles how a run is judged.
    "plots": {"types", "_jaxprs", "_checks", "_iteration"},
}
PUBLIC = {
    "types": {"Array", "ArrayLike", "LossFn", "PRNGKey", "Params", "PyTree", "Stage", "Status"},
    "neurons": {
        "Neuron",
        "init",
        "weighted_sum",
        "apply",
        "step",
        "init_network",
        "apply_network",
    },
    "losses": {
        "squared_error",
        "half_squared_error",
        "absolute_error",
        "sigmoid_binary_cross_entropy",
        "softmax_cross_entropy_with_integer_labels",
        "hinge",
        "squared_hinge",
        "ramp",
        "true_class_score",
        "binary_margin",
        "multiclass_margin",
        "empirical_risk",
    },
    "chains": {
        "compose",
        "Trace",
        "backprop",
        "local_derivatives",
        "Correction",
        "correct",
        "Solution",
        "solve",
    },
    "descent": {
        "DIVERGENCE_FACTOR",
        "Trajectory",
        "step",
        "gradient_descent",
        "optimize",
        "minibatches",
        "trim",
        "status_name",
    },
    "curvature": {
        "hvp",
        "EigenPairs",
        "top_eigenpairs",
        "sharpness",
        "TraceEstimate",
        "hessian_trace",
        "Estimate",
        "batch_sharpness",
        "gradient_noise_scale",
        "Stability",
        "stability",
        "gnvp",
        "SpectralDensity",
        "spectral_density",
        "DiagonalEstimate",
        "hessian_diagonal",
        "critical_sharpness",
        "preconditioned_sharpness",
        "adam_preconditioner",
    },
    "planes": {
        "FilterAxis",
        "explain_filters",
        "orthonormalize",
        "Plane",
        "point",
        "project",
        "Projection",
        "project_path",
        "coordinate",
        "random",
        "through",
        "along",
        "principal",
        "filter_normalize",
        "PlaneGeometry",
        "geometry",
        "explain",
        "restrict",
    },
    "curves": {
        "Barrier",
        "BasinProfile",
        "Connection",
        "Curve",
        "align",
        "barrier",
        "basin_profile",
        "connect",
        "groups_of",
        "point",
    },
    "surfaces": {
        "Approximation",
        "CriticalPoints",
        "Persistence",
        "Surface",
        "critical_points",
        "evaluate",
        "persistence",
        "select",
        "sweep",
    },
    "sweeps": {"approximate", "load", "run"},
}
WITH_OUTSIDE = {"sweeps", "plots"}  # the rooms that may touch files, clocks and terminals
FILES = sorted(LIBRARY.rglob("*.py"))


def room_of(path):
    """The room that a file stands in: a module's own name, or that of its folder."""
    return path.relative_to(LIBRARY).parts[0].removesuffix(".py")


ROOMS = [path for path in FILES if room_of(path) != "__init__"]


@functools.cache
def tree_of(path):
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


@functools.cache
def nodes_of(path):
    return tuple(ast.walk(tree_of(path)))


def imports(path):
    """Every imported module as (its dotted name, the names taken from it)."""
    for node in nodes_of(path):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, set()
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: relative imports hide the direction"
            yield node.module or "", {alias.name for alias in node.names}


def rooms_imported(path):
    """The rooms of jaxgd that a file imports, each with the names taken from it."""
    for module, names in imports(path):
        if module == "jaxgd":
            yield from ((name, set()) for name in names)
        elif module.startswith("jaxgd."):
            yield module.split(".")[1], names


def called(path):
    """The names of the functions that a file calls, as written."""
    return {ast.unparse(node.func) for node in nodes_of(path) if isinstance(node, ast.Call)}


def public_names(path):
    """What a room defines at its top level without an underscore."""
    names = set()
    for node in tree_of(path).body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
        elif isinstance(node, ast.ImportFrom) and path.stem == "__init__":
            # A folder's front has the names that its files define.
            own = (node.module or "").startswith(f"jaxgd.{room_of(path)}.")
            names |= {alias.name for alias in node.names if own}
    return {name for name in names if not name.startswith("_")}


def by_name(paths):
    return pytest.mark.parametrize(
        "path", paths, ids=lambda path: path.relative_to(HOME).with_suffix("").as_posix()
    )


@by_name(ROOMS)
def test_every_room_stands_in_the_table_of_imports(path):
    assert room_of(path) in MAY_IMPORT


def test_the_table_of_imports_goes_downwards_only():
    order = list(MAY_IMPORT)
    for room, allowed in MAY_IMPORT.items():
        assert all(order.index(other) < order.index(room) for other in allowed), room


@by_name(ROOMS)
def test_a_room_imports_only_the_rooms_below_it(path):
    own = room_of(path)
    for room, names in rooms_imported(path):
        if own == "plots" and room not in {"plots", *MAY_IMPORT["plots"]}:
            module = importlib.import_module(f"jaxgd.{room}")
            assert names, f"plots takes result types by name, not the whole of {room}"
            assert all(inspect.isclass(getattr(module, name)) for name in names), names
        else:
            assert room in {own, *MAY_IMPORT[own]}, f"{own} imports {room}"


@by_name([path for path in ROOMS if path.parent != LIBRARY])
def test_files_of_a_folder_import_downwards_and_never_its_front(path):
    def below(file):
        """The files of the same folder that a file imports, and all that those import."""
        found = set()
        for module, names in imports(file):
            folder = f"jaxgd.{room_of(file)}"
            if module == folder:
                found |= {file.parent / f"{name}.py" for name in names}
            elif module.startswith(f"{folder}."):
                found.add(file.parent / f"{module.removeprefix(folder + '.')}.py")
        return found.union(*(below(other) for other in found))

    assert path not in below(path)
    assert all(other.stem != "__init__" and other.exists() for other in below(path))


def test_the_front_door_holds_rooms_and_the_version_and_no_code():
    tree = tree_of(LIBRARY / "__init__.py")

    allowed = (ast.Expr, ast.ImportFrom, ast.Import, ast.Assign)
    assert all(isinstance(node, allowed) for node in tree.body)
    assigned = {ast.unparse(node.targets[0]) for node in tree.body if isinstance(node, ast.Assign)}
    assert assigned == {"__version__", "__all__"}
    assert isinstance(jaxgd.__version__, str)
    assert all(inspect.ismodule(getattr(jaxgd, room)) for room in jaxgd.__all__)
    assert {room for room, _ in rooms_imported(LIBRARY / "__init__.py")} == set(jaxgd.__all__)


def test_every_public_room_but_plots_is_at_the_front_door():
    rooms = {room_of(path) for path in ROOMS if not room_of(path).startswith("_")}

    assert set(jaxgd.__all__) == rooms - {"plots"}
    assert list(jaxgd.__all__) == sorted(jaxgd.__all__)


@by_name(sorted(HOME.glob("experiments/**/*.py")))
def test_experiments_import_public_rooms_only(path):
    for room, names in rooms_imported(path):
        assert not room.startswith("_"), room
        assert not any(name.startswith("_") for name in names), names


# The folders of experiments, and which of them each may import from.
EXPERIMENTS_MAY_IMPORT = {
    "data": set(),
    "shell": {"data"},
    "note": {"data", "shell"},
    "beyond": {"data", "shell"},
    "bench": {"data", "shell", "note", "bench"},
}


@by_name(sorted(HOME.glob("experiments/*/*.py")))
def test_experiments_use_data_and_the_shell_and_never_each_other(path):
    folder = path.parent.name
    for module, names in imports(path):
        parts = module.split(".")
        if parts[0] != "experiments":
            continue
        others = {parts[1]} if len(parts) > 1 else names
        own = others == {folder} and folder in {"data", "shell"}
        assert own or others <= EXPERIMENTS_MAY_IMPORT[folder], module


@pytest.mark.parametrize("room", PUBLIC)
def test_nothing_is_public_by_accident(room):
    folder = LIBRARY / room
    path = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
    assert public_names(path) == PUBLIC[room]


@pytest.mark.parametrize("room", ["types", "neurons", "losses", "planes", "surfaces"])
def test_a_room_says_what_it_offers(room):
    offered = importlib.import_module(f"jaxgd.{room}").__all__

    assert set(offered) == PUBLIC[room]
    assert len(offered) == len(PUBLIC[room])


def test_the_status_has_its_public_address_in_descent():
    assert jaxgd.descent.Status is jaxgd.types.Status


def test_the_top_level_holds_only_what_the_map_shows():
    ignored = [
        line.rstrip("/")
        for line in (HOME / ".gitignore").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith("#")
    ]
    allowed = {"jaxgd", "experiments", "tests", "pyproject.toml", "README.md"}
    found = {
        path.name
        for path in HOME.iterdir()
        if not path.name.startswith(".")
        and not any(fnmatch.fnmatch(path.name, pattern) for pattern in ignored)
    }

    assert found <= allowed, found - allowed


def test_importing_the_library_imports_no_matplotlib_and_starts_no_backend():
    # jax.distributed.initialize must come before a backend, and may come after the import.
    program = """
import sys, jaxgd
from jax._src import xla_bridge
print("matplotlib" in sys.modules)
import jaxgd.plots
print("matplotlib" in sys.modules, xla_bridge.backends_are_initialized())
"""

    done = subprocess.run(
        [sys.executable, "-c", program], cwd=HOME, capture_output=True, text=True, check=False
    )

    assert (done.returncode, done.stdout.split()) == (0, ["False", "True", "False"])
    assert done.stderr == ""


@by_name([path for path in FILES if room_of(path) != "plots"])
def test_only_plots_knows_matplotlib_and_no_room_knows_pyplot(path):
    assert not any(module.split(".")[0] == "matplotlib" for module, _ in imports(path))


@by_name(FILES)
def test_no_room_opens_a_window(path):
    assert not any("pyplot" in {module.split(".")[-1], *names} for module, names in imports(path))


@by_name(FILES)
def test_no_room_prints(path):
    assert "print" not in called(path)
    assert not any(name.startswith("jax.debug.") for name in called(path))


@by_name([path for path in FILES if room_of(path) not in WITH_OUTSIDE])
def test_no_room_but_the_outward_ones_touches_files_clocks_or_hidden_randomness(path):
    outside = {"os", "io", "pathlib", "random", "time", "datetime", "logging", "tqdm", "warnings"}

    assert not outside & {module.split(".")[0] for module, _ in imports(path)}
    assert not {"open", "input"} & called(path)
    assert not any("np.random" in name or "numpy.random" in name for name in called(path))
    assert not any(isinstance(node, ast.Global) for node in nodes_of(path))


@by_name([path for path in ROOMS if room_of(path) not in {"_checks", *WITH_OUTSIDE}])
def test_one_place_raises(path):
    kinds = (ast.Raise, ast.Assert)

    assert not any(isinstance(node, kinds) for node in nodes_of(path))


# What restrict computes once, and what the host does with a loader, has no caller to jit it. The
# functions of planes and curves are called by hand, once for a model: op by op they would compile
# for seconds. A descent called by hand compiles its loop; what is before and after it is not to
# cost more.
@by_name(
    [
        path
        for path in ROOMS
        if room_of(path) not in {*WITH_OUTSIDE, "_affine", "planes", "curves"}
        and not path.as_posix().endswith(
            (
                "curvature/_loader.py",
                "descent/_judging.py",
                "jaxgd/_iteration.py",
            )
        )
    ]
)
def test_no_room_jits_for_its_caller(path):
    jits = {node.attr for node in nodes_of(path) if isinstance(node, ast.Attribute)}

    assert "jit" not in jits


def is_defined_in(module, value):
    """Whether a value is defined in a room: in its module, or in a file of its folder."""
    home = getattr(value, "__module__", None) or ""
    return home == module.__name__ or home.startswith(f"{module.__name__}.")


def public_objects():
    for room in jaxgd.__all__:
        module = getattr(jaxgd, room)
        for name, value in vars(module).items():
            if not name.startswith("_") and is_defined_in(module, value):
                yield pytest.param(value, id=f"{room}.{name}")


CLASSES = [p for p in public_objects() if inspect.isclass(p.values[0])]
FUNCTIONS = [p for p in public_objects() if inspect.isfunction(p.values[0])]


@pytest.mark.parametrize("kind", CLASSES)
def test_results_are_named_tuples_without_methods(kind):
    if issubclass(kind, enum.Enum):
        return
    defined = {
        node.name
        for node in ast.walk(ast.parse(inspect.getsource(kind)))
        if isinstance(node, ast.FunctionDef)
    }
    assert issubclass(kind, tuple)
    assert not defined
    # Every field is explained.
    explained = inspect.getdoc(kind) or ""
    assert all(f"\n  {field}: " in explained for field in typing.get_type_hints(kind))


@pytest.mark.parametrize("function", FUNCTIONS)
def test_options_are_keyword_only_and_everything_is_annotated(function):
    signature = inspect.signature(function)

    assert signature.return_annotation is not inspect.Parameter.empty
    for parameter in signature.parameters.values():
        assert parameter.annotation is not inspect.Parameter.empty, parameter
        assert parameter.name != "self"
    optional = {
        parameter.name
        for parameter in signature.parameters.values()
        if parameter.default is not inspect.Parameter.empty
        and parameter.kind is not inspect.Parameter.KEYWORD_ONLY
    }
    assert optional <= {"num_outputs"}, optional


@pytest.mark.parametrize("function", FUNCTIONS)
def test_every_public_function_is_explained_with_an_example(function):
    documentation = inspect.getdoc(function) or ""

    assert "Returns:\n" in documentation
    assert "Example:\n  >>> " in documentation
    for parameter in inspect.signature(function).parameters.values():
        stars = "*" * (parameter.kind is inspect.Parameter.VAR_POSITIONAL)
        if "Args:\n" in documentation:
            assert f"\n  {stars}{parameter.name}: " in documentation, parameter.name
