"""Private parts of keras_tuner: the library is the one that they were read in."""

import ast
import hashlib
import importlib
import inspect
import pathlib

import keras_tuner as kt
import pytest
from package_source import syntax_tree

import tfnas
from tfnas.nas import keras_tuner_private as private

PACKAGE = pathlib.Path(tfnas.__file__).parent
# (module of keras_tuner.src, part) -> beginning of the SHA-256 of its source in READ_IN
SOURCES = {
    ("engine.oracle", "synchronized"): "639ddefe40f6",
    ("engine.oracle", "Display.__init__"): "49337ee007cb",
    ("engine.oracle", "Display.on_trial_begin"): "ac7734a27075",
    ("engine.oracle", "Display.on_trial_end"): "87ca77689bd0",
    ("engine.oracle", "Oracle.__init__"): "790a516e13f1",
    ("engine.oracle", "Oracle.create_trial"): "dc06affa9188",
    ("engine.oracle", "Oracle.end_trial"): "fec9dadf2f94",
    ("engine.oracle", "Oracle._retry"): "75a3850304c2",
    ("engine.oracle", "Oracle._check_consecutive_failures"): "05a1a1dd074d",
    ("engine.oracle", "Oracle._check_objective_found"): "3e80d6a59abd",
    ("engine.oracle", "Oracle._get_trial_dir"): "ea373162c772",
    ("engine.oracle", "Oracle._project_dir"): "e6116fe984f6",
    ("engine.oracle", "Oracle._save_trial"): "073ef15c6848",
    ("engine.oracle", "Oracle._set_project_dir"): "bc604498a245",
    ("engine.base_tuner", "BaseTuner.__init__"): "15f347cabd15",
    ("engine.base_tuner", "BaseTuner.search"): "39c5cecee4c4",
    ("engine.base_tuner", "BaseTuner._run_and_update_trial"): "db6325bc0b41",
    ("engine.base_tuner", "BaseTuner._try_run_and_update_trial"): "0d84027daa2a",
    ("engine.base_tuner", "BaseTuner._populate_initial_space"): "972f3defbc2e",
    ("engine.base_tuner", "BaseTuner._is_worker"): "6997ec9c2635",
    ("engine.base_tuner", "BaseTuner._get_tuner_fname"): "df261df5db51",
    ("engine.tuner", "Tuner.__init__"): "38341a7806fd",
    ("engine.tuner", "Tuner.run_trial"): "a62b793008fd",
    ("engine.tuner", "Tuner._build_and_fit_model"): "1be221e98773",
    ("engine.tuner", "Tuner._try_build"): "0e5b29c96360",
    ("engine.tuner", "Tuner._override_compile_args"): "46b510317303",
    ("engine.tuner", "Tuner._configure_tensorboard_dir"): "620552049fc5",
    ("engine.tuner", "Tuner._get_checkpoint_fname"): "7c81b53cd289",
    ("engine.tuner", "Tuner._get_build_config_fname"): "9b1c8fb024f0",
    ("engine.tuner", "Tuner.load_model"): "c825165d285c",
    ("engine.tuner_utils", "SaveBestEpoch"): "4ec2cafb3710",
    ("engine.tuner_utils", "validate_trial_results"): "ba803b440431",
    ("engine.tuner_utils", "TunerCallback"): "dfdfa0299c19",
    ("engine.objective", "create_objective"): "b93a6997c208",
    ("engine.objective", "MultiObjective"): "d6dc99969eba",
    ("engine.metrics_tracking", "MetricsTracker"): "62b3eb60995a",
    ("distribute.utils", "has_chief_oracle"): "36af0cafd9c5",
    ("distribute.utils", "is_chief_oracle"): "9be75d92096b",
    ("distribute.oracle_client", "OracleClient"): "b778b0169bab",
}


def digest(module, part):
    found = importlib.import_module(f"keras_tuner.src.{module}")
    for name in part.split("."):
        found = inspect.getattr_static(found, name)
    found = found.fget if isinstance(found, property) else found
    if module == "engine.oracle" and found.__closure__:  # a synchronized method
        found = inspect.getclosurevars(found).nonlocals["func"]
    return hashlib.sha256(inspect.getsource(inspect.unwrap(found)).encode()).hexdigest()[:12]


@pytest.mark.parametrize(("module", "part"), SOURCES)
def test_the_library_is_as_it_was_read(module, part):
    assert digest(module, part) == SOURCES[module, part], (
        f"{part} of keras_tuner {kt.__version__} is not that of {private.READ_IN}: read it again, "
        "adapt nas/keras_tuner_private.py, then set READ_IN and this digest"
    )


def reaches(tree):
    """Imports of private modules of keras_tuner."""
    for node in ast.walk(tree):
        names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        yield from (name for name in names if name.startswith("keras_tuner.src"))


def private_calls(tree):
    """Private methods of the base class that a class calls."""
    for node in ast.walk(tree):
        is_super = (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Call)
            and getattr(node.value.func, "id", None) == "super"
        )
        if is_super and node.attr.startswith("_") and not node.attr.startswith("__"):
            yield node.attr


def test_no_other_module_reaches_into_keras_tuner():
    for path in PACKAGE.rglob("*.py"):
        if path.name == "keras_tuner_private.py":
            continue
        tree = syntax_tree(path)
        assert list(reaches(tree)) == [], path
        if path.is_relative_to(PACKAGE / "nas"):
            assert list(private_calls(tree)) == [], path


def test_the_reach_is_seen_where_there_is_one():
    tree = ast.parse(inspect.getsource(private))
    assert "keras_tuner.src.engine" in set(reaches(tree))
    assert {"_save_trial", "_run_and_update_trial"} <= set(private_calls(tree))


def test_the_lock_is_released_if_a_method_raises():
    class Oracle(private.HookedOracle):
        @private.synchronized
        def fails(self):
            raise OverflowError

        @private.synchronized
        def works(self):
            return 5

    oracle = Oracle(kt.Objective("score", "max"))
    for _ in range(2):
        with pytest.raises(OverflowError):
            oracle.fails()
    assert oracle.works() == 5
