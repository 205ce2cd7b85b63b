"""Models in HDF5 files that refer to other files, or claim more than they hold."""

import io
import json
import zipfile

import h5py
import keras
import numpy as np
import pytest
from keras import layers

import tfnas
from tfnas.legacy.hdf5_checks import check_hdf5, check_layer_sizes, parsed_config
from tfnas.legacy.model_files import load_h5, load_model

pytestmark = pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
SECRET = b"SECRET" * 8


def written(path, fill):
    with h5py.File(path, "w") as file:
        fill(file)
    return path


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "secret.bin"
    path.write_bytes(SECRET)
    return path


def other_file(folder):
    return written(folder / "other.h5", lambda file: file.create_dataset("d", data=np.ones(3)))


def external_storage(file, folder):
    storage = [(str(folder / "secret.bin"), 0, 48)]
    file.create_dataset("a/kernel", (4, 3), np.float32, external=storage)


def external_link(file, folder):
    file["layers"] = h5py.ExternalLink(str(other_file(folder)), "/d")


def virtual_data(file, folder):
    layout = h5py.VirtualLayout((3,), "f8")
    layout[:] = h5py.VirtualSource(str(other_file(folder)), "d", (3,))
    file.create_virtual_dataset("a/b/kernel", layout)


def huge_shape(file, folder):
    file.create_dataset("kernel", (2**40,), np.float32, chunks=(1024,))


def many_groups(file, folder):
    file.create_group("/".join("a" * 300))


HOSTILE = {
    external_storage: "data itself, got external storage of '/a/kernel'",
    external_link: "data itself, got the external link '/layers'",
    virtual_data: "data itself, got the virtual dataset '/a/b/kernel'",
    huge_shape: "must expand to at most",
    many_groups: "at most 200 levels of groups",
}


@pytest.mark.parametrize("fill", HOSTILE, ids=lambda fill: fill.__name__)
def test_hostile_hdf5_files_are_refused(fill, secret, tmp_path):
    path = written(tmp_path / "a.h5", lambda file: fill(file, tmp_path))
    with pytest.raises(ValueError, match=HOSTILE[fill]):
        check_hdf5(path, path.stat().st_size)


def test_a_circle_of_groups_ends(tmp_path):
    def fill(file):
        file.create_dataset("a/b", data=np.zeros((3, 7)))
        file["a/again"] = file["a"]
        file["a/root"] = file["/"]
        file["soft"] = h5py.SoftLink("/a")

    path = written(tmp_path / "a.h5", fill)
    assert check_hdf5(path, path.stat().st_size) == 7


def small_model(units=3):
    return keras.Sequential([keras.Input((4,)), layers.Dense(units, name="dense")])


@pytest.mark.parametrize("fill", HOSTILE, ids=lambda fill: fill.__name__)
@pytest.mark.parametrize("suffix", ["h5", "keras"])
def test_models_with_hostile_weights_are_refused(suffix, fill, secret, tmp_path):
    path = tmp_path / f"model.{suffix}"
    small_model().save(path)
    if suffix == "h5":
        with h5py.File(path, "a") as file:
            fill(file.create_group("more"), tmp_path)
    else:
        edit_archive(path, "model.weights.h5", lambda content: edited(content, fill, tmp_path))
    with pytest.raises(ValueError, match=r"model '.*' can't be loaded: .*HDF5 file"):
        load_model(path)


def edited(content, fill, folder):
    stream = io.BytesIO(content)
    with h5py.File(stream, "a") as file:
        fill(file.create_group("more"), folder)
    return stream.getvalue()


def edit_archive(path, name, change):
    with zipfile.ZipFile(path) as archive:
        parts = {each: archive.read(each) for each in archive.namelist()}
    parts[name] = change(parts.get(name, b""))
    with zipfile.ZipFile(path, "w") as archive:
        for each, content in parts.items():
            archive.writestr(each, content)


def nested(levels):
    return b'{"a":' * levels + b"1" + b"}" * levels


@pytest.mark.parametrize("levels", [300, 100_000])
def test_deep_configurations_are_refused(levels, tmp_path):
    with pytest.raises(ValueError, match="at most 200 levels"):
        parsed_config(nested(levels))
    path = tmp_path / "model.keras"
    small_model().save(path)
    edit_archive(path, "config.json", lambda _: nested(levels))
    with pytest.raises(ValueError, match=r"can't be loaded: .* at most 200 levels"):
        load_model(path)
    if levels > 65_000 / 6:  # an attribute has at most 64 KiB
        return
    path = tmp_path / "model.h5"
    small_model().save(path)
    with h5py.File(path, "a") as file:
        file.attrs["model_config"] = nested(levels).decode()
    with pytest.raises(ValueError, match=r"can't be loaded: .* at most 200 levels"):
        load_h5(path)


@pytest.mark.parametrize("suffix", ["h5", "keras"])
def test_layers_that_the_weights_do_not_fill_are_refused(suffix, tmp_path):
    path = tmp_path / f"model.{suffix}"
    small_model().save(path)

    def enlarge(text):
        config = json.loads(text)
        config["config"]["layers"][1]["config"]["units"] = 10**9
        return json.dumps(config)

    if suffix == "keras":
        edit_archive(path, "config.json", enlarge)
    else:
        with h5py.File(path, "a") as file:
            file.attrs["model_config"] = enlarge(file.attrs["model_config"])
    with pytest.raises(ValueError, match=r"layer 'dense' \(Dense\) must have weights in the file"):
        load_model(path)


@keras.saving.register_keras_serializable("tests")
class Factors(layers.Layer):
    """A layer of the user's whose `units` are no dimension of a weight."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def build(self, shape):
        self.scale = self.add_weight(shape=(2,), name="scale")

    def call(self, x):
        return x * self.scale[0]

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def test_sound_models_are_not_refused(tmp_path):
    path = tmp_path / "own.keras"
    keras.Sequential([keras.Input((4,)), Factors(10**6)]).save(path)
    assert load_model(path).layers[0].units == 10**6
    with pytest.warns(UserWarning, match="not yet been built"):
        keras.Sequential([layers.Dense(5000)]).save(path)  # it has no weights
    assert load_model(path).layers[0].units == 5000
    tfnas.quantize_aware(small_model(1500)).save(path)
    assert tfnas.load_model(path).output_shape == (None, 1500)


def test_only_settings_of_stock_layers_are_compared():
    entry = {
        "class_name": "Dense",
        "config": {"name": "d", "units": 5000},
        "build_config": {"a": 1},
    }
    check_layer_sizes({"layers": [{**entry, "module": "own"}]}, 10)
    check_layer_sizes({"layers": [entry]}, 5000)
    with pytest.raises(ValueError, match="largest dimension is 10, got units=5,000"):
        check_layer_sizes({"layers": [entry]}, 10)


def test_archives_that_lead_out_are_refused(tmp_path):
    path = tmp_path / "model.keras"
    small_model().save(path)
    edit_archive(path, "assets/../../outside", lambda _: b"x")
    with pytest.raises(ValueError, match=r"can't be loaded: an archive must hold names inside"):
        load_model(path)
    assert not (tmp_path.parent / "outside").exists()
