"""Artifact.save_c: the source compiles, and the program contains the file."""

import pathlib
import shutil
import subprocess

import pytest

import tfnas
from tfnas.tflite.c_source import c_name, header_text, source_text

REFERENCE = pathlib.Path(tfnas.__file__).parent / "measure" / "reference.tflite"
MAIN = """\
#include <stdint.h>
#include <stdio.h>
#include "net.h"

int main(void) {
  fwrite(some_net, 1, some_net_len, stdout);
  return (uintptr_t)some_net % 16 != 0;
}
"""


@pytest.fixture(scope="module")
def artifact():
    return tfnas.Artifact.load(REFERENCE)


@pytest.mark.parametrize(
    ("compiler", "suffix", "standard"),
    [
        ("gcc", ".c", "c99"),
        ("gcc", ".c", "c11"),
        ("g++", ".cc", "c++11"),
        ("g++", ".c", "c++17"),
    ],
)
def test_it_compiles_and_the_program_holds_the_file(artifact, tmp_path, compiler, suffix, standard):
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler} on this machine")
    source, header = artifact.save_c(tmp_path / "new" / f"net{suffix}", "some_net")
    assert (source.name, header) == (f"net{suffix}", source.with_name("net.h"))
    main = source.with_name(f"main{suffix}")
    main.write_text(MAIN)
    program = tmp_path / "program"
    strict = [f"-std={standard}", "-Wall", "-Wextra", "-Wpedantic", "-Werror"]
    subprocess.run([compiler, *strict, source, main, "-o", program], check=True)
    done = subprocess.run([program], capture_output=True, check=True)  # 0: it is aligned
    assert done.stdout == artifact.content


@pytest.mark.parametrize(("compiler", "suffix"), [("gcc", ".c"), ("g++", ".cc")])
def test_the_alignment_is_requested(tmp_path, compiler, suffix):
    """A compiler aligns long arrays by itself, so the declaration is checked."""
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler} on this machine")
    (tmp_path / "net.h").write_text(header_text(b"abc", "net"))
    check = "char aligned[__alignof__(net) == 16 ? 1 : -1];\n"
    source = tmp_path / f"net{suffix}"
    source.write_text(source_text(b"abc", "net", "net.h") + check)
    subprocess.run([compiler, "-c", source, "-o", tmp_path / "net.o"], check=True)


def test_names_and_lengths(artifact, tmp_path):
    source, header = artifact.save_c(tmp_path / "net.cc")
    text = source.read_text()
    assert '#include "net.h"' in text
    assert "TFNAS_ALIGNED const unsigned char model[] = {" in text
    assert f"const unsigned int model_len = {artifact.size};" in text
    assert "extern const unsigned char model[];" in header.read_text()
    assert {p.name for p in tmp_path.iterdir()} == {"net.cc", "net.h"}  # no temporary file is left


@pytest.mark.parametrize("length", [1, 11, 12, 13, 25])
def test_every_byte_is_written_once(length):
    content = bytes(range(length))
    text = source_text(content, "net", "net.h")
    [body] = [part.split("}")[0] for part in text.split("{")[1:]]
    assert bytes(int(number, 16) for number in body.replace(",", " ").split()) == content
    assert max(map(len, text.splitlines())) < 80
    assert f"{length} bytes" in header_text(content, "net")


@pytest.mark.parametrize(
    "name", ["", "8bit", "my net", "net-1", "netz\u00fc", "int", "class", "alignas", "_Bool", "a\n"]
)
def test_a_wrong_name_is_refused(artifact, tmp_path, name):
    with pytest.raises(ValueError, match="name must be a C identifier") as error:
        artifact.save_c(tmp_path / "net.c", name)
    assert str(error.value).endswith(f"got {name!r}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["net", "net.cpp", "net.h", "net.tflite"])
def test_a_wrong_suffix_is_refused(artifact, tmp_path, path):
    with pytest.raises(ValueError, match=r"path must end in \.c or \.cc, got '.*'"):
        artifact.save_c(tmp_path / path)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("small_int8", "small_int8"),
        ("my net-1.0", "my_net_1_0"),
        ("8bit", "model_8bit"),
        ("int", "model_int"),
        ("\u00fc", "model"),
    ],
)
def test_a_name_for_any_file(text, name):
    assert c_name(text) == name
