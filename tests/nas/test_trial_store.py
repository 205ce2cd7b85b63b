"""The files of trials: what is written, what is read again, what is lost by a kill."""

import json

import keras_tuner as kt
import pytest

from tfnas.nas.trial_store import TrialHistory, TrialStore
from tfnas.runtime.files import write_atomically

HP = kt.HyperParameters()


def trial(number, status="COMPLETED"):
    found = kt.engine.trial.Trial(HP.copy(), f"{number:02d}", status)
    found.hyperparameters.values = {"units": number}
    return found


def test_histories_and_proposals_are_read_as_they_were_written(tmp_path):
    store = TrialStore(tmp_path)
    store.history("01").parent = "00"
    for number, status in ((0, "RUNNING"), (2, "FAILED"), (1, "COMPLETED"), (0, "COMPLETED")):
        store.write(trial(number, status), runs=1, promotion={"rung": 1} if number == 2 else {})
    again = TrialStore(tmp_path)
    found = again.read(HP)
    assert [t.trial_id for t, _ in found] == ["00", "01", "02"]
    assert [t.hyperparameters.values["units"] for t, _ in found] == [0, 1, 2]
    assert found[2][1]["rung"] == 1
    assert again.histories == store.histories
    assert again.end_order() == store.end_order() == ["02", "01", "00"]
    again.write(trial(3), runs=1, promotion={})
    assert again.end_order()[-1] == "03"


def test_a_file_that_is_no_trial_is_a_failed_one(tmp_path):
    store = TrialStore(tmp_path)
    for number in (0, 1, 2):
        store.write(trial(number), runs=1, promotion={})
    store.path("01").write_text("{")
    store.path("02").write_text(json.dumps({**trial(2).get_state(), "tfnas": {"runs": "x"}}))
    again = TrialStore(tmp_path)
    statuses = {t.trial_id: (t.status, t.message) for t, _ in again.read(HP)}
    assert statuses["00"] == ("COMPLETED", None)
    for name in ("01", "02"):
        assert statuses[name][0] == "FAILED"
        assert statuses[name][1].startswith("its file can't be read")
    assert again.end_order() == ["00", "01", "02"]


def test_a_trial_without_its_file_never_began(tmp_path):
    store = TrialStore(tmp_path)
    store.write(trial(0), runs=1, promotion={})
    (tmp_path / "trial_01").mkdir()
    assert [t.trial_id for t, _ in TrialStore(tmp_path).read(HP)] == ["00"]


def test_the_state_of_the_search_is_written_when_it_changes(tmp_path):
    store = TrialStore(tmp_path)
    store.write_oracle({"seed": 1})
    store.oracle_path.unlink()
    store.write_oracle({"seed": 1})
    assert not store.oracle_path.exists()
    store.write_oracle({"seed": 2})
    assert store.read_oracle() == {"seed": 2}


@pytest.mark.parametrize(
    "history", [TrialHistory(), TrialHistory(1, 3, 7, "04"), TrialHistory(ended=0)]
)
def test_a_history_survives_json(history):
    assert TrialHistory.from_dict(json.loads(json.dumps(history.to_dict()))) == history


def test_a_file_of_an_earlier_version_counted_its_starts(tmp_path):
    store = TrialStore(tmp_path)
    own = {"begun": 2, "runs": 1, "ended": 0}
    text = json.dumps({**trial(0).get_state(), "tfnas": own})
    write_atomically(store.path("00"), text)
    [(found, _)] = store.read(HP)
    assert found.status == "COMPLETED"
    assert store.histories["00"] == TrialHistory(runs=1, ended=0)
