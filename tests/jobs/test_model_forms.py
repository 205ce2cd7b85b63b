"""Jobs with models that are not functional, or have preprocessing in front."""

import keras
import numpy as np
import pytest
from model_kinds import SubclassedKind, images, table, table_with_preprocessing

import tfnas
from tfnas.jobs.inputs import load_model_and_data


def compiled(model):
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def test_a_subclassed_model_is_opened_with_its_compilation():
    x, y = images()
    model, parts = load_model_and_data(compiled(SubclassedKind()), (x, y))
    assert model.input_shape == (None, 8, 8, 1)
    assert model.loss == "sparse_categorical_crossentropy"
    assert [layer.name for layer in model.layers if layer.weights]
    assert len(parts.train) > len(parts.test) > 0


def test_data_goes_through_preprocessing_once():
    keras.utils.set_random_seed(0)
    original = compiled(table_with_preprocessing())
    rows, y = table()
    model, parts = load_model_and_data(original, (rows, y))
    assert {each.name for each in model.inputs} == set(parts.train.x)
    assert not {type(layer).__name__ for layer in model.layers} & {"StringLookup", "IntegerLookup"}
    assert model.loss == original.loss
    assert all(np.asarray(each).dtype.kind in "fi" for each in parts.test.x.values())
    assert any("city_index" in note and "stay out of the files" in note for note in parts.notes)


def test_streams_for_a_model_with_preprocessing_are_refused():
    rows, y = table()

    def stream():
        yield rows, y

    with pytest.raises(ValueError, match="must be arrays where a model has preprocessing"):
        load_model_and_data(
            compiled(table_with_preprocessing()), stream, stream, stream, argument="train_data"
        )


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["subclassed", "table"])
def test_a_job_takes_the_model(kind, tmp_path):
    keras.utils.set_random_seed(0)
    build, data = {
        "subclassed": (SubclassedKind, images),
        "table": (table_with_preprocessing, table),
    }[kind]
    settings = tfnas.FineTuneSettings(epochs=1)
    result = tfnas.run_techniques(
        compiled(build()),
        [("prune", {"sparsity": 0.5})],
        data(),
        directory=tmp_path / "job",
        settings=settings,
        verbose=0,
    )
    variables = result.outcomes[-1].model.trainable_variables
    kernels = [v for v in variables if v.name.endswith("kernel")]
    assert kernels
    for each in kernels:
        assert np.mean(np.asarray(each) == 0) == pytest.approx(0.5, abs=0.06)
