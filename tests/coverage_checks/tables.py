"""The tables of docs/coverage.md: their rows, and the checks of their columns."""

import dataclasses
import importlib.util
import inspect
from collections.abc import Callable, Sequence

from coverage_checks.application_rows import APPLICATION_CHECKS, FAMILIES, application_subject
from coverage_checks.cells import Check, Subject, subject_of_kind
from coverage_checks.command_checks import COMMANDS
from coverage_checks.file_checks import MODE_CHECKS
from coverage_checks.kerashub_rows import BACKBONE_CHECKS, BACKBONES, backbone_subject
from coverage_checks.layer_rows import LAYER_CHECKS, layer_names, layer_subject
from coverage_checks.technique_checks import TECHNIQUES
from model_kinds import KINDS


@dataclasses.dataclass(frozen=True)
class CoverageTable:
    """A table of the page.

    Args:
        rows: Names of its rows.
        subject: Returns the model of a row.
        checks: The check of each column.
        rows_together: How many rows one process runs.
        package: A package that the rows need; without it none of them is run. "": none.
    """

    rows: Sequence[str]
    subject: Callable[[str], Subject]
    checks: dict[str, Check]
    rows_together: int = 1
    package: str = ""

    def can_run(self) -> bool:
        """Whether the package of the rows is installed."""
        return not self.package or importlib.util.find_spec(self.package) is not None

    def columns(self) -> dict[str, str]:
        """Returns each column with what it checks."""
        return {name: inspect.getdoc(check) or "" for name, check in self.checks.items()}


TABLES = {
    "kinds": CoverageTable(list(KINDS), subject_of_kind, TECHNIQUES | MODE_CHECKS | COMMANDS),
    "layers": CoverageTable(layer_names(), layer_subject, LAYER_CHECKS, 25),
    "applications": CoverageTable(list(FAMILIES), application_subject, APPLICATION_CHECKS),
    "kerashub": CoverageTable(
        list(BACKBONES), backbone_subject, BACKBONE_CHECKS, package="keras_hub"
    ),
}
# Titles in the page: which table, which of its columns.
SECTIONS = {
    "Kinds of models x techniques": ("kinds", tuple(TECHNIQUES)),
    "Kinds of models x formats of files": ("kinds", tuple(MODE_CHECKS)),
    "Kinds of models x commands": ("kinds", tuple(COMMANDS)),
    "Classes of keras.layers, each alone": ("layers", tuple(LAYER_CHECKS)),
    "keras.applications, the smallest of each family": ("applications", tuple(APPLICATION_CHECKS)),
    "KerasHub, where installed": ("kerashub", tuple(BACKBONE_CHECKS)),
}
