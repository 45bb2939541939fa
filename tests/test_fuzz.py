"""Any content of a file and any name gives a result or a BiwaaError, never another exception.

$BIWAA_FUZZ inputs for each parser (40 in CI); inputs that failed once are the examples.
"""

import io
import json
import os
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import yaml
from conftest import write_images
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from biwaa.domains.lists import open_list
from biwaa.domains.sources import array_names, open_arrays
from biwaa.domains.spec import open_domain
from biwaa.errors import BiwaaError, printable
from biwaa.models.saved import load_model
from biwaa.recipe import Recipe, dump_recipe, load_recipe, recipe_from, task_settings
from biwaa.tensors import load_tensors
from biwaa.training.folder import RunFolder

INPUTS = int(os.environ.get("BIWAA_FUZZ", "40"))
fuzz = settings(
    max_examples=INPUTS, deadline=None, suppress_health_check=list(HealthCheck), derandomize=INPUTS == 40, database=None
)
TEXT = st.text(max_size=60)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
SETTINGS = [*Recipe().flat()]
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Two classes of images, and a folder to write hostile files to."""
    folder = tmp_path_factory.mktemp("fuzz")
    write_images(folder / "images", {"cat": 2, "dog": 2}, size=8)
    return folder


def survives(parser, *arguments):
    """The result, or the sentence: one line that can be printed."""
    try:
        return parser(*arguments)
    except BiwaaError as error:
        said = str(error)
        assert len(said) < 3000
        assert printable(said).isprintable()
        return said


LINES = st.lists(
    st.sampled_from(["cat/0.png 0", "cat/1.png 0", "dog/0.png 1", "dog/1.png 1", "", "/", "..", ". 1", "cat/0.png"])
    | TEXT,
    max_size=6,
)


@fuzz
@example(["cat/0.png " + "9" * 5000])
@example(["cat/0.png" + " " * 100_000 + "x"])
@example(["cat/0.png ٣", "dog/0.png ²"])
@example(["cat/0.png 0", "a\0b 1"])
@example(["/ x", "cat/0.png 0"])
@example(["x" * 100_000 + " 0"])
@given(LINES)
def test_list_files(place, lines):
    file = place / "list.txt"
    file.write_bytes("\n".join(lines).encode("utf-8", "surrogatepass"))
    survives(open_list, "list.txt", file, place / "images")


@fuzz
@example("a\0.txt")
@example("~nobody-of-this-name/x")
@example("x" * 5000)
@example("x" * 5000 + ".txt")
@example("\udcff.txt@\0")
@example("\0.npz:a")
@given(TEXT | st.builds("{}{}{}".format, TEXT, st.sampled_from([".txt", ".txt@", ".npz:", ":", "@", "~"]), TEXT))
def test_specs(place, spec):
    if not spec.startswith("hf:") and spec.strip("./"):
        survives(open_domain, spec, place)


@fuzz
@example("!!python/object/apply:os.system ['touch pwned']")
@example("steps: !!python/name:os.system")
@example("a: " + "[" * 5000)
@example("a: &a [x]\nb: &b [*a,*a]\nc: &c [*b,*b]\nsteps: [*c,*c]")
@example("steps: &a [*a]")
@example("steps: " + "9" * 5000)
@example("seed: 2020-99-99")
@example("? !!timestamp foo\n: 1")
@example("steps: !!int ''")
@example("weighting: !!bool foo")
@example("checkpoint_every: 1e3m")
@example("{[1]: 2}")
@example("tasks: &t {A2W: *t}")
@given(TEXT | (JSON | st.dictionaries(st.sampled_from(SETTINGS), SCALARS, max_size=2)).map(yaml.safe_dump))
def test_recipes(place, text):
    file = place / "recipe.yaml"
    file.write_bytes(text.encode("utf-8", "surrogatepass"))
    found = survives(load_recipe, str(file))
    survives(task_settings, str(file))
    if isinstance(found, Recipe):
        again = place / "again.yaml"
        again.write_text(dump_recipe(found), encoding="utf-8")
        assert repr(load_recipe(str(again))) == repr(found)  # repr: NaN equals itself
    assert not Path("pwned").exists()


@fuzz
@given(st.dictionaries(st.sampled_from([*SETTINGS, "x"]), JSON, max_size=3))
def test_settings(given_settings):
    survives(recipe_from, given_settings, "here")


def npz(members):
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return target.getvalue()


def npy(descr="|u1", shape="(2, 4, 4)", data=bytes(32)):
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


GOOD = npz({"a_x.npy": npy(), "a_y.npy": npy("<i8", "(2,)", bytes(16))})


@fuzz
@example(npz({"a_x": b"no array at all"}))
@example(npz({"a_x.npy": npy(shape="(999999999999, 99, 99)")}))
@example(npz({"a_x.npy": npy(shape="(-1, 4, 4)")}))
@example(npz({"a_x.npy": npy(shape="()", data=b"\0")}))
@example(npz({"a_x.npy": npy(descr="|O", data=b"cos\nsystem\n(S'touch pwned'\ntR.")}))
@example(npz({"a_x.npy": npy(shape="(" * 200)}))
@example(npz({"a_x.npy": npy(), "a_y.npy": npy("<u8", "(2,)", b"\xff" * 16)}))
@example(npz({"a_x.npy": npy(), "a_y.npy": b""}))
@example(GOOD[:100])
@given(
    st.binary(max_size=200)
    | st.builds(lambda at, byte: GOOD[:at] + byte + GOOD[at + 1 :], st.integers(0, len(GOOD)), st.binary(max_size=2))
    | st.builds(lambda descr, shape, data: npz({"a_x.npy": npy(descr, shape, data)}),
                st.sampled_from(["|u1", "<f8", "|O", "<U4", "|V8", "x"]),
                st.sampled_from(["(2, 4, 4)", "(0, 4, 4)", "(2, 0, 4)", "(4,)", "(2, 4, 4, 3)", "(2, 4, 4, 1)", "7"]),
                st.binary(max_size=128))
)  # fmt: skip
def test_arrays(place, content):
    file = place / "arrays.npz"
    file.write_bytes(content)
    survives(open_arrays, "spec", file, "a")
    survives(array_names, file)
    assert not Path("pwned").exists()


@pytest.mark.parametrize("name", ["../climbed", "../../climbed", "/climbed", "~/climbed", "a/../../climbed"])
def test_archives_with_names_that_climb_out_write_nothing(tmp_path, monkeypatch, name):
    """Members are read and never unpacked, so their names lead nowhere."""
    inner = tmp_path / "images" / "inner"
    inner.mkdir(parents=True)
    monkeypatch.chdir(inner)
    monkeypatch.setenv("HOME", str(tmp_path))
    file = inner / "arrays.npz"
    file.write_bytes(npz({f"{name}_x.npy": npy()}))
    before = sorted(tmp_path.rglob("*"))
    assert array_names(file) == [name]
    assert len(open_arrays("spec", file, name).images) == 2
    assert sorted(tmp_path.rglob("*")) == before
    assert not list(Path("/").glob("climbed*"))


def tensors_file(header, data=bytes(64)):
    text = header if isinstance(header, bytes) else json.dumps(header).encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(text)) + text + data


ONE = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
FACTS = {"format": "biwaa model 1", "backbone": "cnn", "bottleneck": 4, "standardised": False, "classes": ["a", "b"],
         "temperature": 1.0, "transform": {"resize": 24, "image_size": 24, "mean": [0, 0, 0], "std": [1, 1, 1],
                                           "crops": 1}}  # fmt: skip


def model_file(**changed):
    """A file of tensors that says of itself what `changed` says."""
    state = {"classifier.bias": torch.zeros(2), "bottleneck.bias": torch.zeros(4)}
    return safetensors.torch.save(state, metadata={"biwaa": json.dumps(FACTS | changed)})


@fuzz
@example(struct.pack("<Q", 2**62) + b"{}")
@example(tensors_file({"a": ONE, "b": ONE}, bytes(8)))
@example(tensors_file({"a": {**ONE, "data_offsets": [8, 0]}}))
@example(tensors_file({"a": {**ONE, "dtype": "F31"}}))
@example(tensors_file({"__metadata__": {"biwaa": "["}}, b""))
@example(tensors_file({"__metadata__": {"biwaa": "[" * 100_000}}, b""))
@example(tensors_file({"__metadata__": {"biwaa": "[]"}}, b""))
@example(tensors_file(b"[" * 5000))
@example(model_file(bottleneck=10**12))
@example(model_file(classes=["a"] * 2))
@example(model_file(classes=[["a"], {}]))
@example(model_file(backbone="../x"))
@example(model_file(backbone="hf-hub:someone/something"))
@example(model_file(transform={**FACTS["transform"], "image_size": 10**6, "resize": 10**6}))
@example(model_file(transform={"image_size": "24"}))
@example(model_file(temperature=-1))
@example(model_file())
@given(st.binary(max_size=100) | JSON.map(tensors_file) | st.builds(
    lambda name, value: model_file(**{name: value}), st.sampled_from(list(FACTS)), JSON))  # fmt: skip
def test_models(place, content):
    file = place / "model.safetensors"
    file.write_bytes(content)
    survives(load_tensors, file)
    assert isinstance(survives(load_model, file), str)  # none of them is whole


@fuzz
@example('{"stage": "round 0", "step": 1, "domain_acc')
@example("[]\n1\nnull\n{}")
@example('{"stage": "round 0", "step": "many"}')
@example("[" * 100_000)
@given(TEXT | st.lists(JSON, max_size=4).map(lambda values: "\n".join(map(json.dumps, values))))
def test_logs(place, text):
    whole = '{"stage": "source-only", "step": 3}\n'
    (place / "log.jsonl").write_bytes(whole.encode() + text.encode("utf-8", "surrogatepass") + b"\n")
    folder = RunFolder(place)
    folder.rewind_log("round 0", 0)
    assert folder.read_log()[0] == {"stage": "source-only", "step": 3}


@fuzz
@given(st.text(st.characters(exclude_categories=()), max_size=40))
def test_printable_is_one_line_of_plain_characters(text):
    shown = printable(text)
    assert shown.isprintable()
    assert np.char.str_len(shown) >= len(text)
    assert printable(shown) == shown
